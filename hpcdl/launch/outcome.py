"""What became of a run: its exit status, and the one failure that is told. Pure functions.

Synopsis::

    outcome = conclude(ranks.ends(), read_failures(log_dir), stopped_by=None)
    print(render(outcome, hostname, log_dir, tail))
    sys.exit(outcome.status)
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from hpcdl.common.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REQUEUE,
)
from hpcdl.common.failures import Failure, first_failure, rank_of, unwritten_error
from hpcdl.common.rank_start import STARTED_AGAIN, log_path
from hpcdl.launch.known import explain
from hpcdl.launch.mpirun import RankEnd

#: Signals that follow from another rank's death: Horovod's C++ gives up by SIGABRT, a launcher sends SIGTERM.
_OFTEN_A_CONSEQUENCE = (signal.SIGABRT, signal.SIGTERM, signal.SIGINT)
#: Signals of a rank that stayed behind when others had left to be requeued: the launcher's, or Horovod's C++ gave up.
#: Not SIGKILL: whom the launcher kills is not among the ends, so it came from outside.
_ENDED_FOR_STAYING = (signal.SIGABRT, signal.SIGTERM)
_TRACEBACK_LINES = 24
_LOG_LINES = 8
#: So much of a log is searched for what is known.
_SEARCHED_LINES = 200


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: Exit status of the whole.
        failure: The first failure, in the rank's own words; or
        end: how the first rank ended that could not say anything.
        stopped_by: The signal that asked for the end, if one did.
    """

    status: int
    failure: Optional[Failure] = None
    end: Optional[RankEnd] = None
    stopped_by: Optional[int] = None

    @property
    def rank(self) -> Optional[int]:
        """The rank that was the cause; None: it is not known."""
        if self.failure is not None:
            return self.failure.rank
        return self.end.rank if self.end is not None else None

    @property
    def can_restart(self) -> bool:
        """Whether starting again makes sense: ranks died, and nobody wanted that."""
        wanted = (EXIT_DONE, EXIT_BAD_INPUT, EXIT_REQUEUE, EXIT_INTERRUPTED)
        return self.stopped_by is None and self.status not in wanted


def conclude(
    ends: Sequence[RankEnd],
    failures: Sequence[Failure],
    stopped_by: Optional[int] = None,
    had_to_kill: bool = False,
    came_late: Optional[int] = None,
) -> Outcome:
    """Decides which rank was the cause, and the exit status.

    The cause is, in this order: a rank that died of a signal such as SIGKILL or SIGSEGV, which no other
    rank's death brings about; the earliest report that is not about another rank's death; a rank that ended
    without a report; any report.

    Args:
        ends: How ranks ended, in order, without those that the launcher killed.
        failures: The reports of the ranks.
        stopped_by: The signal that asked for the end, if one did.
        had_to_kill: Whether the launcher killed ranks that did not end by themselves.
        came_late: A signal that asked for the end when no rank ran any more; it counts unless all is done.
    """
    reported = {failure.rank for failure in failures}
    bad = [end for end in ends if end.exit_status not in (EXIT_DONE, EXIT_REQUEUE)]
    silent = [end for end in bad if end.rank not in reported]
    crashed = [end for end in silent if end.signal is not None and end.signal not in _OFTEN_A_CONSEQUENCE]
    first = first_failure(failures)
    statuses = {end.exit_status for end in ends}
    agreed = statuses.pop() if statuses in ({EXIT_DONE}, {EXIT_REQUEUE}) and not had_to_kill else None
    if _left_for_requeue(ends) and not failures:
        agreed = EXIT_REQUEUE

    if stopped_by is None and agreed != EXIT_DONE:
        stopped_by = came_late
    if stopped_by is not None:
        if stopped_by != signal.SIGINT:
            if agreed is not None and not failures:
                return Outcome(agreed, stopped_by=stopped_by)
            if first is not None and not first.is_consequence and first.exit_status < 128:
                return Outcome(first.exit_status, failure=first, stopped_by=stopped_by)
        return Outcome(128 + stopped_by, stopped_by=stopped_by)
    if agreed is not None and not failures:
        return Outcome(agreed)
    if crashed:
        return Outcome(crashed[0].exit_status, end=crashed[0])
    if first is not None and not first.is_consequence:
        return Outcome(first.exit_status, failure=first)
    if silent:
        return Outcome(silent[0].exit_status, end=silent[0])
    if first is not None:
        return Outcome(first.exit_status, failure=first)
    # Some ranks are done and some want to be requeued, or one of a run that is done had to be killed.
    odd = next((end for end in ends if end.exit_status == EXIT_REQUEUE), None)
    return Outcome(EXIT_FAILED, end=odd)


def _left_for_requeue(ends: Sequence[RankEnd]) -> bool:
    """Whether all had saved when the first left, so that those that stayed behind had only to end.

    A rank that another one's death has stopped may save what it has and leave so too, but later than that death.
    """
    if not ends or ends[0].exit_status != EXIT_REQUEUE:
        return False
    return all(end.exit_status == EXIT_REQUEUE or end.signal in _ENDED_FOR_STAYING for end in ends)


def summary(outcome: Outcome, hostname: str) -> str:
    """Says the cause in one line."""
    if outcome.failure is not None:
        failure = outcome.failure
        return f"rank {failure.rank} on {failure.hostname} failed: {failure.error}"
    if outcome.end is not None and outcome.end.exit_status == EXIT_REQUEUE:
        return f"{_name(outcome.end)} on {hostname} left to be requeued, others did not"
    if outcome.end is not None:
        verb = "was" if outcome.end.signal is not None else "ended without a word:"
        return f"{_name(outcome.end)} on {hostname} {verb} {outcome.end.describe()}"
    if outcome.stopped_by is not None:
        return f"stopped by {signal.Signals(outcome.stopped_by).name}"
    return "the ranks had to be ended"


def meaning(outcome: Outcome, log_dir: Path, tail: Callable[[Path, int], List[str]]) -> Optional[str]:
    """Says what the cause means, in a sentence; None: nothing is known of it, or there is none."""
    if outcome.failure is None and outcome.end is None and outcome.stopped_by is None:
        return None
    if outcome.failure is not None and outcome.failure.exit_status == EXIT_BAD_INPUT:
        return None  # which says by itself what to do
    return meaning_of(outcome.failure, outcome.rank, log_dir, tail)


def meaning_of(
    failure: Optional[Failure], rank: Optional[int], log_dir: Path, tail: Callable[[Path, int], List[str]]
) -> Optional[str]:
    """Says what a rank's failure means; of one that reported nothing, by the end of its log and the launcher's."""
    account = "" if failure is None else f"{failure.error}\n{failure.traceback or ''}"
    logs = [log_dir / "launcher.log", *([log_path(log_dir, rank)] if rank is not None else [])]

    def read_logs() -> str:
        return "\n".join(line for log in logs for line in _of_last_start(tail(log, _SEARCHED_LINES)))

    return explain(account, read_logs)


def render(outcome: Outcome, hostname: str, log_dir: Path, tail: Callable[[Path, int], List[str]]) -> str:
    """Tells the user about a run that did not end well, on one screen.

    Args:
        outcome: What became of the run.
        hostname: This machine, for ranks that could not say where they were.
        log_dir: Folder of the logs.
        tail: Reads the last lines of a file.
    """
    if outcome.end is not None:
        unwritten = _unwritten(outcome.end, hostname, log_dir, tail)
        outcome = outcome if unwritten is None else replace(outcome, failure=unwritten, end=None)
    head = "hpcdl: " + summary(outcome, hostname)
    failure, end = outcome.failure, outcome.end
    if failure is not None and failure.exit_status == EXIT_BAD_INPUT:
        return "hpcdl: " + failure.error
    if failure is None and end is None:
        return f"{head}; logs: {log_dir}"
    rank = outcome.rank
    log = log_dir / "launcher.log" if rank is None else log_path(log_dir, rank)
    lines = [head]
    if failure is not None and failure.traceback:
        lines += _indent(failure.traceback.rstrip().splitlines()[-_TRACEBACK_LINES:])
    elif failure is None and rank != 0:  # what rank 0 wrote has been on the screen already
        last = tail(log, _LOG_LINES)
        if last:
            whose = "its log" if rank is not None else "the launcher's log"
            lines += [f"  the last lines of {whose}:", *_indent(last)]
    meant = meaning(outcome, log_dir, tail)
    if meant is not None:
        lines.append(f"  that is: {meant}")
    lines.append(f"  log: {log}")
    return "\n".join(lines)


def _unwritten(
    end: RankEnd, hostname: str, log_dir: Path, tail: Callable[[Path, int], List[str]]
) -> Optional[Failure]:
    """Reads from the logs what a rank could not report, on a full disk say; mpirun's account may be lost there too."""
    if end.signal is not None or end.exit_status == EXIT_REQUEUE:
        return None
    logs = sorted(log_dir.glob("rank-*.log")) if end.rank is None else [log_path(log_dir, end.rank)]
    for log in logs:
        error = unwritten_error(_of_last_start(tail(log, _SEARCHED_LINES)))
        if error is not None:
            return Failure(rank_of(log), hostname, 0, 0.0, end.exit_status, error)
    return None


def _name(end: RankEnd) -> str:
    return "a rank" if end.rank is None else f"rank {end.rank}"


def _of_last_start(lines: Sequence[str]) -> Sequence[str]:
    """Leaves out what was written before the ranks were started again."""
    starts = [number for number, line in enumerate(lines) if line == STARTED_AGAIN]
    return lines[starts[-1] + 1 :] if starts else lines


def _indent(lines: Sequence[str]) -> List[str]:
    return ["  | " + line for line in lines]
