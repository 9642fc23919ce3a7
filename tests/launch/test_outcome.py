"""Which rank was the cause, what is told of it, and the exit status of the whole."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import List, Optional, Sequence

import pytest

from hpcdl.common.errors import EXIT_REQUEUE
from hpcdl.common.failures import Failure
from hpcdl.common.rank_start import STARTED_AGAIN
from hpcdl.launch.mpirun import RankEnd
from hpcdl.launch.outcome import Outcome, conclude, meaning, render

LOGS = Path("logs")
TRACEBACK = "Traceback (most recent call last):\n  File 'x.py', line 1\nValueError: no data\n"


def failure(rank: int, time: float, error: str = "ValueError: no data", exit_status: int = 1) -> Failure:
    traceback = TRACEBACK if error.startswith("ValueError") else None
    return Failure(rank, f"n{rank}", 1, time, exit_status, error, traceback)


FOLLOWED = "UnknownError: Horovod has been shut down. This was caused by an exception on one of the ranks"


def ends(*statuses: int) -> List[RankEnd]:
    return [RankEnd(rank, status) for rank, status in enumerate(statuses)]


def no_tail(path: Path, num_lines: int) -> List[str]:
    raise AssertionError("not needed")


@pytest.mark.parametrize("status", [0, 85])
def test_what_all_ranks_left_with_is_the_status(status: int) -> None:
    assert conclude(ends(status, status), []) == Outcome(status)


def test_the_first_failure_is_the_cause_not_the_one_of_the_lowest_rank() -> None:
    outcome = conclude(ends(1, 1), [failure(0, 2.0), failure(1, 1.0)])
    assert outcome.failure is not None
    assert outcome.failure.rank == 1


def test_a_rank_that_died_of_another_ones_death_is_not_the_cause_even_if_it_was_earlier() -> None:
    outcome = conclude(ends(1, 7), [failure(0, 1.0, FOLLOWED), failure(1, 2.0, exit_status=7)])
    assert outcome.failure is not None
    assert (outcome.failure.rank, outcome.status) == (1, 7)


def test_a_rank_that_was_killed_is_the_cause_of_what_the_others_report() -> None:
    outcome = conclude([RankEnd(0, 1), RankEnd(1, 137, 9)], [failure(0, 1.0, FOLLOWED)])
    assert (outcome.status, outcome.end) == (137, RankEnd(1, 137, 9))


def test_a_crash_is_the_cause_even_if_others_report_what_does_not_look_like_a_consequence() -> None:
    outcome = conclude([RankEnd(0, 1), RankEnd(1, 139, 11)], [failure(0, 1.0)])
    assert outcome.end == RankEnd(1, 139, 11)


def test_an_abort_is_a_consequence_where_another_rank_tells_a_reason() -> None:
    outcome = conclude([RankEnd(0, 134, 6), RankEnd(1, 1)], [failure(1, 1.0)])
    assert outcome.failure is not None
    assert outcome.failure.rank == 1


def test_bad_input_keeps_its_status_and_is_told_in_one_line() -> None:
    outcome = conclude(ends(2, 2), [failure(r, 1.0 + r, "np must be even", 2) for r in (0, 1)])
    assert outcome.status == 2
    assert render(outcome, "vm", LOGS, no_tail) == "hpcdl: np must be even"


def test_if_only_some_ranks_want_to_be_requeued_the_run_has_failed() -> None:
    outcome = conclude(ends(85, 0), [])
    assert outcome.status == 1
    assert "rank 0 on vm left to be requeued, others did not" in render(outcome, "vm", LOGS, lambda p, n: [])


def test_ranks_that_had_to_be_killed_make_no_success() -> None:
    assert conclude([RankEnd(0, 0)], [], had_to_kill=True).status == 1
    assert conclude([], [], had_to_kill=True).status == 1


@pytest.mark.parametrize(
    ("number", "found", "reports", "status"),
    [
        (signal.SIGINT, ends(130, 130), [], 130),
        (signal.SIGINT, ends(0, 0), [], 130),
        (signal.SIGINT, ends(1, 1), [failure(0, 1.0)], 130),
        (signal.SIGTERM, ends(85, 85), [], 85),
        (signal.SIGTERM, ends(0, 0), [], 0),
        (signal.SIGTERM, [RankEnd(0, 143, 15)], [], 143),
        (signal.SIGTERM, ends(1, 1), [failure(0, 1.0)], 1),
        (signal.SIGTERM, ends(1, 1), [failure(0, 1.0, FOLLOWED)], 143),
        (signal.SIGHUP, [RankEnd(0, 143, 15)], [], 129),
    ],
)
def test_a_stop_that_was_asked_for_has_the_status_of_its_signal_unless_the_ranks_agreed(
    number: int, found: Sequence[RankEnd], reports: Sequence[Failure], status: int
) -> None:
    assert conclude(found, reports, number).status == status


@pytest.mark.parametrize(
    ("outcome", "can"),
    [
        (Outcome(1), True),
        (Outcome(137, end=RankEnd(1, 137, 9)), True),
        (Outcome(0), False),
        (Outcome(2), False),
        (Outcome(85), False),
        (Outcome(130), False),
        (Outcome(143, stopped_by=signal.SIGTERM), False),
    ],
)
def test_only_a_run_whose_ranks_died_is_started_again(outcome: Outcome, can: bool) -> None:
    assert outcome.can_restart is can


def test_a_failure_is_told_with_rank_host_traceback_and_log() -> None:
    text = render(Outcome(1, failure=failure(1, 1.0)), "vm", LOGS, no_tail)
    assert text.splitlines() == [
        "hpcdl: rank 1 on n1 failed: ValueError: no data",
        "  | Traceback (most recent call last):",
        "  |   File 'x.py', line 1",
        "  | ValueError: no data",
        "  log: logs/rank-0001.log",
    ]


def test_of_a_long_traceback_the_end_is_told() -> None:
    long = Failure(1, "n1", 1, 1.0, 1, "E: x", "\n".join(f"line {i}" for i in range(500)))
    lines = render(Outcome(1, failure=long), "vm", LOGS, no_tail).splitlines()
    assert lines[-2] == "  | line 499"
    assert len(lines) < 30


@pytest.mark.parametrize(("rank", "log"), [(1, "rank-0001.log"), (None, "launcher.log")])
def test_a_rank_that_died_silently_is_told_with_the_last_lines_of_its_log(
    rank: Optional[int], log: str
) -> None:
    def tail(path: Path, num_lines: int) -> List[str]:
        return [f"last of {path.name}"]

    text = render(Outcome(137, end=RankEnd(rank, 137, 9)), "vm", LOGS, tail)
    assert "on vm was killed by SIGKILL" in text
    assert f"  | last of {log}" in text
    assert text.endswith(f"log: logs/{log}")


def test_where_mpiruns_account_is_lost_too_the_logs_tell_who_could_not_report(tmp_path: Path) -> None:
    logs = {
        "rank-0000.log": ["hpcdl: runs/x is finished", "step 1"],
        "rank-0001.log": ["hpcdl: rank 1: cannot write the report x/rank-0001.json: full", "hpcdl: the rule"],
    }
    for name in logs:
        (tmp_path / name).touch()

    def told(status: int) -> str:
        return render(
            Outcome(status, end=RankEnd(None, status)), "vm", tmp_path, lambda p, n: logs.get(p.name, [])
        )

    assert told(2) == "hpcdl: the rule"
    assert told(1).startswith("hpcdl: rank 1 on vm failed: the rule\n")
    logs["rank-0001.log"].insert(1, STARTED_AGAIN)
    assert told(1).startswith("hpcdl: a rank on vm ended without a word: exit status 1\n")


def test_what_rank_0_wrote_is_not_told_again() -> None:
    assert "last of" not in render(Outcome(3, end=RankEnd(0, 3)), "vm", LOGS, lambda p, n: ["last of it"])


def test_a_stop_by_a_signal_is_named() -> None:
    text = render(Outcome(143, stopped_by=signal.SIGTERM), "vm", LOGS, no_tail)
    assert text == "hpcdl: stopped by SIGTERM; logs: logs"


def test_a_silent_end_is_explained_by_what_the_launcher_and_the_log_say_of_the_last_start() -> None:
    logs = {
        "launcher.log": ["srun: error: n1: task 1: Out Of Memory"],
        "rank-0001.log": ["OSError: [Errno 28] No space left on device", STARTED_AGAIN, "epoch 1"],
    }
    end = RankEnd(1, 137, 9, is_out_of_memory=True)
    text = render(Outcome(137, end=end), "vm", LOGS, lambda path, n: logs[path.name])
    assert text.startswith("hpcdl: rank 1 on vm was killed by SIGKILL (out of memory)\n")
    assert "  that is: the memory that the job asked for" in text
    logs["launcher.log"] = []
    assert "that is" not in render(Outcome(137, end=end), "vm", LOGS, lambda path, n: logs[path.name])


def test_a_job_whose_time_was_over_is_told_from_one_that_was_cancelled() -> None:
    ended = Outcome(143, stopped_by=signal.SIGTERM)
    said = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2024-04-20T09:09:37"
    assert "longer --time" in str(meaning(ended, LOGS, lambda path, n: [f"{said} DUE TO TIME LIMIT ***"]))
    assert meaning(ended, LOGS, lambda path, n: [f"{said} ***"]) is None


def test_bad_input_says_by_itself_what_to_do() -> None:
    refused = Failure(1, "n1", 1, 1.0, 2, "no: Permission denied; pass another --run-dir")
    assert render(Outcome(2, failure=refused), "vm", LOGS, no_tail) == f"hpcdl: {refused.error}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT])
def test_a_rank_that_stayed_behind_does_not_spoil_what_all_had_saved_for(number: int) -> None:
    ends = [RankEnd(0, EXIT_REQUEUE), RankEnd(1, 128 + number, number)]
    assert conclude(ends, []).status == EXIT_REQUEUE
    assert conclude(ends[:1], [], had_to_kill=True).status == EXIT_REQUEUE
    assert conclude([RankEnd(0, 0), ends[1]], []).status == 128 + number


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_death_is_the_cause_where_the_others_left_to_be_requeued_after_it(number: int) -> None:
    died = RankEnd(2, 128 + number, number)
    others = [RankEnd(rank, EXIT_REQUEUE) for rank in (3, 1, 0)]
    assert conclude([died, *others], []) == Outcome(128 + number, end=died)


def test_a_kill_from_outside_is_told_even_if_another_rank_had_left_to_be_requeued() -> None:
    killed = RankEnd(1, 128 + signal.SIGKILL, signal.SIGKILL)
    assert conclude([RankEnd(0, EXIT_REQUEUE), killed], []) == Outcome(137, end=killed)
