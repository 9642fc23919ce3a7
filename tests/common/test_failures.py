"""A rank's report of its own failure: complete or not there, and never in the way of the error itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import pytest

from hpcdl.common.failures import (
    Failure,
    failure_path,
    first_failure,
    note_end,
    ranks_ended,
    read_failure,
    read_failures,
    write_failure,
)

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, rank: int, **changes: Any) -> None:
    fields: Dict[str, Any] = {"hostname": "n1", "exit_status": 1, "error": "ValueError: no data", **changes}
    assert write_failure(folder, rank=rank, **fields)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, 7, traceback="Trace\nbäck")
    (failure,) = read_failures(tmp_path)
    assert (failure.rank, failure.hostname, failure.pid) == (7, "n1", os.getpid())
    assert (failure.error, failure.traceback) == ("ValueError: no data", "Trace\nbäck")


def test_reports_come_in_the_order_of_ranks_beyond_four_digits(tmp_path: Path) -> None:
    for rank in (10000, 2, 9999):
        write(tmp_path, rank)
    assert [failure.rank for failure in read_failures(tmp_path)] == [2, 9999, 10000]


def test_leaving_in_order_to_be_requeued_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path, 0, exit_status=85)
    assert read_failures(tmp_path) == []


def test_a_good_end_is_noted_apart_from_failures_and_never_in_the_way(tmp_path: Path) -> None:
    for rank in (10000, 2):
        note_end(tmp_path, rank)
    note_end(tmp_path / "gone", 3)
    assert ranks_ended(tmp_path) == [2, 10000]
    assert read_failures(tmp_path) == []


def test_a_damaged_report_still_says_that_the_rank_failed(tmp_path: Path) -> None:
    failure_path(tmp_path, 3).write_text('{"rank": 3, "host')
    (failure,) = read_failures(tmp_path)
    assert (failure.rank, failure.exit_status) == (3, 1)
    assert '{"rank": 3' in failure.error


def test_nothing_half_written_is_ever_under_the_name_of_a_report(tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["rank-0001.json"]
    json.loads(failure_path(tmp_path, 1).read_text())


def test_a_report_that_cannot_be_written_is_said_and_nothing_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    assert not write_failure(missing, rank=1, hostname="n", exit_status=1, error="x")
    assert "hpcdl: rank 1: cannot write" in capsys.readouterr().err


def test_a_report_knows_where_in_the_log_the_failure_begins(tmp_path: Path) -> None:
    code = (
        "import sys; from hpcdl.common.failures import write_failure\n"
        "print('before', end=''); print('too', end='', file=sys.stderr)\n"
        "write_failure(sys.argv[1], rank=0, hostname='n', exit_status=1, error='x'); print('after')"
    )
    with open(str(tmp_path / "log"), "wb") as log:
        command = [sys.executable, "-c", code, str(tmp_path)]
        subprocess.run(command, cwd=str(ROOT), stdout=log, stderr=subprocess.STDOUT, check=True)
    failure = read_failure(failure_path(tmp_path, 0))
    assert failure is not None
    assert failure.log_bytes is not None
    shown, hidden = (tmp_path / "log").read_bytes()[: failure.log_bytes], b"after\n"
    assert sorted(shown) == sorted(b"beforetoo")
    assert (tmp_path / "log").read_bytes().endswith(hidden)


@pytest.mark.parametrize(
    "error",
    [
        "UnknownError: Graph execution error: Horovod has been shut down. This was caused by ...",
        "RuntimeError: [/src/gloo/transport/tcp/pair.cc:589] Connection closed by peer [127.0.0.1]:4",
    ],
)
def test_what_survivors_say_is_not_the_cause(error: str) -> None:
    survivor = Failure(0, "n", 1, 1.0, 1, error)
    cause = Failure(1, "n", 1, 2.0, 1, "ValueError: no data", "Traceback ...")
    assert survivor.is_consequence
    assert first_failure([survivor, cause]) == cause
    assert first_failure([survivor]) == survivor
    assert first_failure([]) is None
