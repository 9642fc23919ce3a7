"""The ranks of a job, started by one srun (or mpirun) over all its nodes: watched from the first of them.

The ranks are on other machines: what is known of them is what they report into the job's folder and what srun says.

Synopsis::

    outcome = run_step(job.argv, environ, job.log_dir, job.cwd, write_to_stdout)
    outcome.status                                          # 0, or 85: all left to be requeued, or ...
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, SIGUSR2, Signals, strsignal
from typing import Callable, List, Mapping, Optional, Sequence

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE
from hpcdl.common.failures import failure_path, read_failures
from hpcdl.common.launchers import expand_numbers
from hpcdl.common.rank_start import STARTED_AGAIN, log_path
from hpcdl.launch.mpirun import RankEnd, end_of_returncode
from hpcdl.launch.outcome import Outcome, conclude
from hpcdl.launch.processes import end_with_parent
from hpcdl.launch.ranks import forget_earlier_start
from hpcdl.launch.watch import Interrupts, LogFollower, Patience, first_wish, once_started, watch_and_end

_ABORT_PAUSE_S = 0.2
#: srun gets this long to end the step on all nodes before it is ended itself.
_LEAVES_S = 10.0


class Step:
    """The srun that starts the ranks, and what is known of them.

    Args:
        child: srun.
        log_dir: Folder of the ranks' logs and reports.
        launcher_log: Where srun's own words go.
        launcher_log_start: What stands in it before this byte is an earlier start's.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], log_dir: Path, launcher_log: Path, launcher_log_start: int
    ) -> None:
        self._child = child
        self._log_dir = log_dir
        self._launcher_log = launcher_log
        self._launcher_log_start = launcher_log_start
        self._before_kill: Optional[List[RankEnd]] = None

    @property
    def had_to_kill(self) -> bool:
        """Whether ranks were still alive when `kill` was called."""
        return self._before_kill is not None

    def is_running(self) -> bool:
        """Whether srun is."""
        return self._child.poll() is None

    def any_failed(self) -> bool:
        """Whether a rank is known to have failed, by srun's words or its own report."""
        if any(end.exit_status not in (EXIT_DONE, EXIT_REQUEUE) for end in self._said()):
            return True
        return bool(read_failures(self._log_dir))

    def any_left_for_requeue(self) -> bool:
        """Whether a rank is known to have left in order to be requeued."""
        return any(end.exit_status == EXIT_REQUEUE for end in self._said())

    def signal(self, number: int) -> None:
        """Hands a signal to srun, which passes it on to all ranks; Ctrl-C ends the step.

        At SIGTERM srun would kill the step. SIGUSR2 asks the ranks for the same, and srun passes it on.
        """
        if number == SIGINT:
            self.kill()
        elif self.is_running():
            self._child.send_signal(SIGUSR2 if number == SIGTERM else number)

    def kill(self) -> None:
        """Ends the step on all nodes: srun does that at the second SIGINT within a second."""
        if not self.is_running():
            return
        if self._before_kill is None:
            self._before_kill = self._said()
        deadline = time.monotonic() + _LEAVES_S
        while self.is_running() and time.monotonic() < deadline:
            self._child.send_signal(SIGINT)
            time.sleep(_ABORT_PAUSE_S)
        if self.is_running():
            self._child.send_signal(SIGKILL)
        self._child.wait()

    def ends(self) -> List[RankEnd]:
        """Tells how ranks ended, in the order in which srun said it; those that `kill` ended are left out."""
        if self._before_kill is not None:
            return self._before_kill
        # Of what ended well srun says nothing: then its own status is that of all.
        return self._said() or [end_of_returncode(None, self._child.returncode)]

    def _said(self) -> List[RankEnd]:
        with open(str(self._launcher_log), "rb") as log:
            log.seek(self._launcher_log_start)
            return parse_ends(log.read().decode(errors="replace"))


def run_step(
    argv: Sequence[str],
    environ: Mapping[str, str],
    log_dir: Path,
    cwd: str,
    write: Callable[[bytes], int],
    patience: Optional[Patience] = None,
) -> Outcome:
    """Starts the ranks and stays until nothing of them is left; what rank 0 writes is passed to ``write``.

    Raises:
        RanksLost: They were up, and could not be watched to their end.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    forget_earlier_start(log_dir)
    launcher_log = log_dir / "launcher.log"
    with Interrupts() as interrupts, open(str(launcher_log), "ab") as log:
        follower = LogFollower(log_path(log_dir, 0), failure_path(log_dir, 0), write)
        if log.tell():
            log.write(f"{STARTED_AGAIN}\n".encode())
            log.flush()
        start = log.tell()
        child = subprocess.Popen(
            list(argv),
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only us, who pass it on
            preexec_fn=end_with_parent(),  # at SIGTERM srun ends the step on all nodes
        )
        step = Step(child, log_dir, launcher_log, start)
        with once_started():
            stopped_by = watch_and_end(step, follower, interrupts, patience or Patience())
            ends, failures = step.ends(), read_failures(log_dir)
    return conclude(ends, failures, stopped_by, step.had_to_kill, first_wish(interrupts.take()))


_SAID = re.compile(r"^srun: error: (\S+): tasks? (\S+): (.+?)\s*$", re.MULTILINE)
#: By the words of the C library, which srun takes.
_BY_WORDS = {strsignal(number): number for number in Signals}


def parse_ends(text: str) -> List[RankEnd]:
    """Reads what srun says of ranks that did not end well, one end for each rank, in its order.

    For example ``srun: error: node2: tasks 2-3: Exited with exit code 1``, ``srun: error: node1: task 0: Killed``.
    """
    return [
        _end(int(rank), words) for _, tasks, words in _SAID.findall(text) for rank in expand_numbers(tasks)
    ]


def _end(rank: int, words: str) -> RankEnd:
    exited = re.match(r"Exited with exit code (\d+)", words)
    if exited:
        return RankEnd(rank, int(exited.group(1)))
    if words.startswith("Out Of Memory"):
        return RankEnd(rank, 128 + SIGKILL, SIGKILL, is_out_of_memory=True)
    number = _BY_WORDS.get(re.sub(r" \(core dumped\)$", "", words))
    return RankEnd(rank, EXIT_FAILED) if number is None else RankEnd(rank, 128 + number, number)
