"""What sacct and scontrol print of a job that has left the queue; on many clusters they print nothing."""

from __future__ import annotations

from typing import Dict, List, Optional

import pytest

from hpcdl.launch.submission.accounting import ask_slurm, cores_busy, ended_as, minutes_left


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1-02:00:00|187200\n", 0.5),
        ("01:00:00|7200", 0.5),
        ("30:00.500|3601", 0.5),
        ("01:00:00|7200\n00:59:00|7200\n", 0.5),
        ("30:00.000|3600\n00:01.000|3600\n29:59.000|3600\n", 0.5),
        ("00:00:00|7200", None),
        ("", None),
        ("slurm accounting storage is disabled", None),
    ],
)
def test_the_accounting_is_read_in_all_forms_of_a_time(text: str, part: Optional[float]) -> None:
    asked: List[str] = []
    assert cores_busy("7", lambda argv: asked.extend(argv) or text) == part  # type: ignore[func-returns-value]
    assert "-X" not in asked  # with it sacct counts no use


@pytest.mark.parametrize(
    ("sacct", "scontrol", "word"),
    [
        ("OUT_OF_MEMORY\n", "", "OUT_OF_MEMORY"),
        ("CANCELLED by 1000\n", "", "CANCELLED"),
        ("", "JobId=7 JobName=train UserId=me(1) JobState=TIMEOUT Reason=TimeLimit", "TIMEOUT"),
        ("", "", None),
    ],
)
def test_slurms_word_for_the_end_is_asked_of_sacct_and_then_of_scontrol(
    sacct: str, scontrol: str, word: Optional[str]
) -> None:
    assert ended_as("7", lambda argv: sacct if argv[0] == "sacct" else scontrol) == word


def test_where_there_is_no_slurm_nothing_is_known() -> None:
    assert ask_slurm(["no-such-sacct"]) == ask_slurm(["false"]) == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("gres/gpu=6000|cpu=900,gres/gpu=1000|cpu=64,gres/gpu=2000\n||\n", {"gres/gpu": 3000.0}),
        ("cpu=100,node=50|cpu=130,node=20|cpu=0,node=0\ncpu=90|cpu=10|\n", {"cpu": 0.0, "node": 30.0}),
        ("|cpu=900|\n", {}),
        ("You are not running a supported priority plugin\n(priority/basic).\n", {}),
        ("", {}),
    ],
)
def test_an_account_has_left_what_is_neither_used_nor_promised_to_running_jobs(
    text: str, left: Dict[str, float]
) -> None:
    assert minutes_left("abc", lambda argv: text) == left
