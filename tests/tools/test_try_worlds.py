"""The verdict over all worlds: no failure, and no required world, may get lost before the exit status."""

from __future__ import annotations

from typing import List

import pytest

from tools.try_worlds import Outcome, closing_line, exit_status, render

PASSED = Outcome("tf2.21", "passed", "12 passed in 3.20s (9.1 s)")
FAILED = Outcome("tf2.15", "FAILED", "1 failed, 11 passed in 3.20s (9.1 s)")
SKIPPED = Outcome("tf2.12", "SKIPPED", "no python3.8 on PATH or in pyenv")


@pytest.mark.parametrize(
    ("outcomes", "required", "status"),
    [
        ([PASSED], "0", 0),
        ([PASSED, SKIPPED], "0", 0),
        ([PASSED, SKIPPED], "1", 1),
        ([PASSED, FAILED], "0", 1),
        ([FAILED, PASSED], "0", 1),
        ([SKIPPED], "0", 1),
        ([], "0", 1),
    ],
)
def test_the_exit_status(outcomes: List[Outcome], required: str, status: int) -> None:
    assert exit_status(outcomes, {"HPCDL_REQUIRE_ALL_WORLDS": required}) == status


def test_the_table_names_each_world_with_its_result() -> None:
    assert render([PASSED, SKIPPED]) == (
        "\nworlds:\n"
        "  tf2.21         passed   12 passed in 3.20s (9.1 s)\n"
        "  tf2.12         SKIPPED  no python3.8 on PATH or in pyenv"
    )


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("...\n12 passed, 1 skipped in 3.20s\n", "12 passed, 1 skipped in 3.20s"),
        ("==== 1 failed, 2 passed in 63.00s (0:01:03) ====\n", "1 failed, 2 passed in 63.00s (0:01:03)"),
        ("1 passed in 0.1s\nmore\n2 passed in 0.2s\n", "2 passed in 0.2s"),
        ("Traceback (most recent call last):\n", None),
    ],
)
def test_the_last_line_of_pytest_is_found(output: str, line: str) -> None:
    assert closing_line(output) == line
