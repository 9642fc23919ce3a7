"""What srun says of ranks (words of a real srun 22.05), and a step that is watched, stopped and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Callable, List, Tuple

import pytest

from hpcdl.common.failures import write_failure
from hpcdl.launch.outcome import Outcome
from hpcdl.launch.processes import identify
from hpcdl.launch.submission.srun import Step, parse_ends, run_step
from hpcdl.launch.watch import Patience

ROOT = str(Path(__file__).resolve().parents[3])


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("srun: error: node[1-2]: tasks 0-1,3: Exited with exit code 1\n", [(0, 1), (1, 1), (3, 1)]),
        ("srun: error: node1: task 0: Segmentation fault (core dumped)\n", [(0, 139)]),
        ("srun: error: node1: task 0: Out Of Memory\n", [(0, 137)]),
        ("srun: error: node1: task 0: User defined signal 2\n", [(0, 140)]),
        ("srun: error: node1: task 0: Trace/breakpoint trap (core dumped)\n", [(0, 133)]),
        ("srun: error: node1: tasks 0-1: CPU time limit exceeded\n", [(0, 152), (1, 152)]),
        ("srun: error: node1: task 2: Broken pipe\n", [(2, 141)]),
        ("srun: error: node1: task 2: Went fishing\n", [(2, 1)]),
        ("srun: error: Unable to allocate resources\nsrun: Force Terminated StepId=1.0\n", []),
        ("loss: 0.5 srun: error: node1: task 0: Killed\n", []),
    ],
)
def test_the_end_of_each_rank_is_read_from_sruns_words(text: str, ends: List[Tuple[int, int]]) -> None:
    assert [(end.rank, end.exit_status) for end in parse_ends(text)] == ends


def test_that_memory_was_used_up_is_kept_from_sruns_words() -> None:
    (end,) = parse_ends("srun: error: node1: task 0: Out Of Memory\n")
    assert end.describe() == "killed by SIGKILL (out of memory)"


def step(tmp_path: Path, program: str) -> Tuple[Outcome, bytes]:
    """Runs a program in the place of srun."""
    shown: List[bytes] = []
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    patience = Patience(after_failure_s=0.2, term_to_kill_s=0.2)

    def write(data: bytes) -> int:
        shown.append(data)
        return len(data)

    outcome = run_step(argv, {"PYTHONPATH": ROOT}, tmp_path / "logs", str(tmp_path), write, patience)
    return outcome, b"".join(shown)


def test_what_rank_0_writes_is_passed_on(tmp_path: Path) -> None:
    outcome, shown = step(tmp_path, "open('logs/rank-0000.log', 'w').write('epoch 1')")
    assert (outcome.status, shown) == (0, b"epoch 1")


def test_a_step_whose_ranks_all_left_to_be_requeued_is_to_be_requeued(tmp_path: Path) -> None:
    words = "srun: error: n[1-2]: tasks 0-3: Exited with exit code 85"
    assert step(tmp_path, f"import sys; print({words!r}); sys.exit(85)")[0].status == 85


def test_the_first_failure_is_that_of_the_rank_that_reported_it(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write_failure(tmp_path / "logs", rank=9, hostname="old", exit_status=1, error="of an earlier start")
    outcome, _ = step(
        tmp_path,
        """
        import sys
        from hpcdl.common.failures import write_failure
        write_failure("logs", rank=3, hostname="n2", exit_status=1, error="ValueError: boom")
        print("srun: error: n2: task 3: Exited with exit code 1")
        sys.exit(1)
        """,
    )
    assert outcome.failure is not None
    assert (outcome.status, outcome.failure.rank) == (1, 3)


def test_a_step_ends_where_who_watches_it_is_killed(tmp_path: Path) -> None:
    program = "import os, time; os.symlink(str(os.getpid()), 'pid'); time.sleep(60)"
    watching = f"""
import os, sys
from pathlib import Path
from hpcdl.launch.submission.srun import run_step
run_step([sys.executable, "-c", {program!r}], os.environ, Path("logs"), ".", len)
"""
    environ = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen([sys.executable, "-c", watching], cwd=tmp_path, env=environ) as keeper:
        assert wait_for((tmp_path / "pid").is_symlink)
        step = identify(int(os.readlink(tmp_path / "pid")))
        assert step is not None
        keeper.kill()
    assert wait_for(lambda: not step.is_alive())


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_a_rank_that_dies_without_a_word_ends_the_others(tmp_path: Path) -> None:
    # The step itself goes on, as srun does for ranks that wait for a dead one, until the keeper ends it.
    outcome, _ = step(
        tmp_path,
        """
        import signal, sys, time
        print("srun: error: n2: task 1: Killed", flush=True)
        def abort(number, frame):
            print("srun: error: n1: task 0: Killed", flush=True)
            sys.exit(137)
        signal.signal(signal.SIGINT, abort)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
        """,
    )
    assert outcome.end is not None
    assert (outcome.status, outcome.end.rank) == (137, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_wish_to_end_that_comes_as_the_step_is_ended_counts(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As scancel may: the ranks have left to be requeued, which nobody wants any more.
    kill = Step.kill

    def interrupted(step: Step) -> None:
        os.kill(os.getpid(), number)
        kill(step)

    monkeypatch.setattr(Step, "kill", interrupted)
    before = signal.signal(number, signal.default_int_handler)  # it may be ignored, as a shell's & has it
    try:
        outcome, _ = step(tmp_path, "raise SystemExit(85)")
    finally:
        signal.signal(number, before)
    assert outcome.stopped_by == number
