"""The ranks of one run on this machine: start them, reach them, end them.

Synopsis::

    outcome = run_ranks(["python", "train.py"], placement, log_dir, environ, mpirun)
    ranks = start_ranks(["python", "train.py"], placement, log_dir, environ, mpirun)     # mpirun=None: Gloo
    ranks.signal(SIGUSR2)
    ranks.kill()
    ranks.ends()         # how each one ended
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import BinaryIO, Dict, List, Mapping, Optional, Sequence

from hpcdl.common.errors import EXIT_DONE, EXIT_REQUEUE
from hpcdl.common.failures import failure_path, read_failures
from hpcdl.common.rank_start import log_path, pid_path
from hpcdl.launch.mpirun import Mpirun, RankEnd, end_of_returncode, first_end
from hpcdl.launch.outcome import Outcome, conclude
from hpcdl.launch.placement import Placement, StartLine, rendezvous_dir, start_lines
from hpcdl.launch.processes import Process, end_with_parent, identify, members, send
from hpcdl.launch.stdout import write_to_stdout
from hpcdl.launch.watch import Interrupts, LogFollower, first_wish, once_started, watch_and_end

#: mpirun removes its files and leaves when its ranks are gone; it gets this long to do so.
_MPIRUN_LEAVES_S = 2.0
_KILL_PAUSE_S = 0.02
_KILL_TRIES = 250


def run_ranks(
    rank_command: Sequence[str],
    placement: Placement,
    log_dir: Path,
    environ: Mapping[str, str],
    mpirun: Optional[Mpirun] = None,
) -> Outcome:
    """Runs a command as ranks until nothing of it is left; rank 0 writes to this process' standard output.

    Raises:
        RanksLost: They were up, and could not be watched to their end.
    """
    with Interrupts() as interrupts:
        follower = LogFollower(log_path(log_dir, 0), failure_path(log_dir, 0), write_to_stdout)
        ranks = start_ranks(rank_command, placement, log_dir, environ, mpirun)
        with once_started():
            stopped_by = watch_and_end(ranks, follower, interrupts)
            ends, failures = ranks.ends(), read_failures(log_dir)
    return conclude(ends, failures, stopped_by, ranks.had_to_kill, first_wish(interrupts.take()))


class Ranks:
    """Running ranks: children of this process (Gloo), or of one mpirun that is.

    Args:
        num_ranks: World size.
        log_dir: Folder of logs, reports and process ids.
        launcher_log: Where the launcher's own words go.
        launcher_log_start: What stands in it before this byte is an earlier run's.

    Attributes:
        had_to_kill: Whether a child was still alive when `kill` was called.
    """

    def __init__(self, num_ranks: int, log_dir: Path, launcher_log: Path, launcher_log_start: int) -> None:
        self._num_ranks = num_ranks
        self._log_dir = log_dir
        self._launcher_log = launcher_log
        self._launcher_log_start = launcher_log_start
        self._children: Dict[Optional[int], subprocess.Popen[bytes]] = {}
        self._leaders: List[Process] = []
        self._ranks: Dict[int, Process] = {}
        self._ends: List[RankEnd] = []
        self.had_to_kill = False

    def adopt(self, rank: Optional[int], child: subprocess.Popen[bytes]) -> None:
        """Takes over a process that leads a session of its own; mpirun, which is no rank, is under None."""
        self._children[rank] = child
        leader = identify(child.pid)  # a child is at least a zombie until it is waited for
        if leader is not None:
            self._leaders.append(leader)
            if rank is not None:
                self._ranks[rank] = leader

    def is_running(self) -> bool:
        """Looks after the children; True while one of them lives."""
        self._note_ranks()
        ended = {end.rank for end in self._ends}
        alive = False
        for rank, child in self._children.items():
            if child.poll() is None:
                alive = True
            elif rank not in ended and not self.had_to_kill:
                self._ends.append(end_of_returncode(rank, child.returncode))
        return alive

    def any_failed(self) -> bool:
        """Whether a rank is known to have failed, by its exit status or by its own report."""
        if any(end.exit_status not in (EXIT_DONE, EXIT_REQUEUE) for end in self._ends):
            return True
        return bool(read_failures(self._log_dir))

    def any_left_for_requeue(self) -> bool:
        """Whether a rank is known to have left in order to be requeued."""
        return any(end.exit_status == EXIT_REQUEUE for end in self._ends)

    def signal(self, number: int) -> None:
        """Sends a signal to every rank.

        It goes to the ranks themselves, since what mpirun makes of a signal differs between versions. Ranks
        that are not up yet have nothing to save: a signal that asks for the end then ends mpirun, and them
        with it.
        """
        for process in self._ranks.values():
            if process.is_alive():
                send(process.pid, number)
        mpirun = self._children.get(None)
        if mpirun is not None and len(self._ranks) < self._num_ranks and number in (SIGINT, SIGTERM):
            send(mpirun.pid, SIGTERM)

    def kill(self) -> None:
        """Ends everything that the run started, at once, and waits until it is gone."""
        self.had_to_kill = self.is_running() or self.had_to_kill
        mpirun = self._children.get(None)
        spare_until = time.monotonic() + _MPIRUN_LEAVES_S
        for _ in range(_KILL_TRIES):
            spared = mpirun.pid if mpirun is not None and time.monotonic() < spare_until else None
            left = members(self._leaders)
            for pid in left:
                if pid != spared:
                    send(pid, SIGKILL)
            if not left:
                break
            time.sleep(_KILL_PAUSE_S)
        for child in self._children.values():
            child.poll()  # so that no zombie stays

    def ends(self) -> List[RankEnd]:
        """Tells how the ranks ended, in the order in which it was seen; those that `kill` ended are left out.

        mpirun ends the others when one has failed, so of its ranks only the first end is known.
        """
        if None not in self._children or self.had_to_kill:
            return list(self._ends)
        with open(str(self._launcher_log), "rb") as log:
            log.seek(self._launcher_log_start)
            first = first_end(log.read().decode(errors="replace"))
        return list(self._ends) if first is None else [first]

    def _note_ranks(self) -> None:
        """Gets to know the ranks that mpirun has started, each while it has just left its process id."""
        for rank in range(self._num_ranks):
            if rank not in self._ranks and pid_path(self._log_dir, rank).exists():
                process = identify(int(pid_path(self._log_dir, rank).read_text(encoding="ascii")))
                if process is not None:
                    self._ranks[rank] = process
                    self._leaders.append(process)  # MPICH gives each rank a session of its own


def forget_earlier_start(log_dir: Path) -> None:
    """Removes what ranks of an earlier start have reported and where they met; their logs stay, and grow."""
    shutil.rmtree(str(rendezvous_dir(log_dir)), ignore_errors=True)
    for kind in ("json", "ended", "pid"):
        for stale in log_dir.glob(f"rank-*.{kind}"):
            stale.unlink()


def start_ranks(
    command: Sequence[str],
    placement: Placement,
    log_dir: Path,
    environ: Mapping[str, str],
    mpirun: Optional[Mpirun] = None,
) -> Ranks:
    """Starts a command once per rank on this machine.

    Args:
        command: What every rank runs.
        placement: How many, and where.
        log_dir: An existing folder. Logs grow if they are there already; reports of an earlier run are
            removed.
        environ: What the ranks get, besides what their placement and launcher add.
        mpirun: Starts the ranks; without it they are started directly, and meet in a folder for Gloo.
    """
    forget_earlier_start(log_dir)
    launcher_log = log_dir / "launcher.log"
    with open(str(launcher_log), "ab") as log:
        ranks = Ranks(placement.num_ranks, log_dir, launcher_log, log.tell())
        try:
            for line in start_lines(command, placement, log_dir, environ, mpirun):
                ranks.adopt(line.rank, _start(line, log))
        except BaseException:  # a fork that fails: the ranks that are up already must not stay
            ranks.kill()
            raise
    return ranks


def _start(line: StartLine, log: BinaryIO) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal reaches hpcdl only, which passes it on once.
    return subprocess.Popen(
        list(line.argv),
        env=dict(line.environ),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent(SIGTERM if line.rank is None else SIGKILL),
    )
