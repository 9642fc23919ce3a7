"""Waits for ranks: shows what rank 0 writes, passes signals on, ends what does not end by itself.

Synopsis::

    with Interrupts() as interrupts, once_started():
        stopped_by = watch_and_end(ranks, LogFollower(log, report, write), interrupts)
    came_late = first_wish(interrupts.take())
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Protocol, Sequence, Tuple, Type

from hpcdl.common.errors import HpcdlError
from hpcdl.common.failures import read_failure

_POLL_S = 0.05
#: The signals that ask for the end.
_WISHES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CHUNK_BYTES = 1 << 16
#: So many chunks are shown before the ranks are looked after again, however fast they write.
_CHUNKS = 16


@dataclass(frozen=True)
class Patience:
    """Seconds that ranks get to end by themselves, before SIGTERM where that makes sense, then SIGKILL.

    Attributes:
        after_failure_s: Another rank failed; survivors usually notice within a second.
        after_requeue_s: Another rank left with a checkpoint written, as all had agreed to; little time is left to the
            job, and all that the others have to do is to end.
        after_interrupt_s: Ctrl-C.
        after_term_s: The ranks were asked to stop and to save, which takes as long as a checkpoint takes.
        term_to_kill_s: Between SIGTERM and SIGKILL.
        reader_s: A reader of the output who has paused, once somebody has asked for the end.
    """

    after_failure_s: float = 3.0
    after_requeue_s: float = 5.0
    after_interrupt_s: float = 10.0
    after_term_s: float = 300.0
    term_to_kill_s: float = 5.0
    reader_s: float = 2.0


class RanksLost(HpcdlError):
    """The ranks were up, and something here kept them from being watched to their end."""


@contextlib.contextmanager
def once_started() -> Iterator[None]:
    """Tells an error that comes while ranks are up from one for which there are none.

    Raises:
        RanksLost: In place of an OSError.
    """
    try:
        yield
    except OSError as problem:
        raise RanksLost(
            f"the ranks were ended, as they could not be watched any more: {problem}"
        ) from problem


class Watched(Protocol):
    """Running ranks, whoever started them."""

    def is_running(self) -> bool:
        """Whether one of them lives."""

    def any_failed(self) -> bool:
        """Whether one is known to have failed."""

    def any_left_for_requeue(self) -> bool:
        """Whether one is known to have left in order to be requeued."""

    def signal(self, number: int) -> None:
        """Sends a signal to all."""

    def kill(self) -> None:
        """Ends them all at once."""


class Interrupts:
    """Collects the signals that reach this process, instead of dying of them."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self._received: Deque[int] = deque()
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in self._NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a shell's background job
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self._received.append(number)

    def noted(self) -> Sequence[int]:
        """Gives the signals that nobody has taken yet."""
        return tuple(self._received)

    def take(self) -> List[int]:
        """Gives the signals that came since the last call."""
        taken = []
        while self._received:
            taken.append(self._received.popleft())
        return taken


class LogFollower:
    """Copies a growing log as bytes, so that progress bars look as they do without a launcher.

    It stops where the rank reported a failure: what follows in the log is the traceback, which is told once,
    by the launcher. A rank writes its report before it prints, so whoever sees the bytes can also see the
    report.

    Args:
        log: The file; it need not exist yet. What is in it now is not shown.
        report: Where the rank would report a failure.
        write: Takes the bytes, or as many of the first ones as there is room for, and says how many.
    """

    def __init__(self, log: Path, report: Path, write: Callable[[bytes], int]) -> None:
        self._log = log
        self._report = report
        self._write = write
        self._shown_to = log.stat().st_size if log.exists() else 0

    def copy(self) -> bool:
        """Copies what is new, as far as there is room for it; of very much, some.

        Returns:
            Whether that was all.
        """
        if not self._log.exists():
            return True
        with open(str(self._log), "rb") as file:
            file.seek(self._shown_to)
            for _ in range(_CHUNKS):
                chunk = file.read(_CHUNK_BYTES)
                failure = read_failure(self._report) if chunk else None
                if failure is not None and failure.is_failure and failure.log_bytes is not None:
                    chunk = chunk[: max(0, failure.log_bytes - self._shown_to)]
                if not chunk:
                    return True
                taken = self._write(chunk)
                self._shown_to += taken
                if taken < len(chunk):
                    return False
        return False


def tail(path: Path, num_lines: int) -> List[str]:
    """Reads the last lines of a file that may be long, or missing; of a progress bar its last state."""
    try:
        with open(str(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * num_lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-num_lines:]


def watch(
    ranks: Watched,
    follower: LogFollower,
    interrupts: Interrupts,
    patience: Patience = Patience(),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Optional[int]:
    """Waits until all ranks have ended.

    SIGUSR1, SIGUSR2 and SIGTERM are passed on, each time: the ranks agree to stop and save. SIGHUP, the
    terminal gone, is passed on as SIGTERM. Ctrl-C is passed on once; the second one kills.

    Returns:
        The signal (SIGINT, SIGTERM or SIGHUP) that asked for the end; None if nobody did.
    """
    agenda = _Agenda()
    stopped_by: Optional[int] = None
    while ranks.is_running():
        follower.copy()
        now = clock()
        for number in interrupts.take():
            if number == signal.SIGINT and stopped_by == signal.SIGINT:
                ranks.kill()
            elif number == signal.SIGINT:
                stopped_by = number
                ranks.signal(number)
                agenda.plan("interrupt", [(now + patience.after_interrupt_s, signal.SIGKILL)])
            elif number in (signal.SIGTERM, signal.SIGHUP):
                stopped_by = stopped_by or number
                ranks.signal(signal.SIGTERM)
                agenda.plan("term", [(now + patience.after_term_s, signal.SIGKILL)])
            else:
                ranks.signal(number)
        for reason, applies, wait_s in (
            ("failure", ranks.any_failed, patience.after_failure_s),
            ("requeue", ranks.any_left_for_requeue, patience.after_requeue_s),
        ):
            if reason not in agenda and applies():
                term = now + wait_s
                agenda.plan(
                    reason, [(term, signal.SIGTERM), (term + patience.term_to_kill_s, signal.SIGKILL)]
                )
        for number in agenda.due(now):
            if number == signal.SIGKILL:
                ranks.kill()
            else:
                ranks.signal(number)
        sleep(_POLL_S)
    return stopped_by


def watch_and_end(
    ranks: Watched, follower: LogFollower, interrupts: Interrupts, patience: Patience = Patience()
) -> Optional[int]:
    """Waits until all ranks have ended, ends whatever is left of them, and shows the rest of the log.

    A reader who has paused is waited for, unless somebody asks for the end, or has done so.

    Returns:
        The signal that asked for the end, as `watch` gives it.
    """
    try:
        stopped_by = watch(ranks, follower, interrupts, patience)
    finally:
        ranks.kill()  # whatever went wrong here, and whatever the ranks themselves have started
    until = float("inf") if stopped_by is None else time.monotonic() + patience.reader_s
    while not follower.copy() and time.monotonic() < until:
        if first_wish(interrupts.noted()) is not None:
            break
        time.sleep(_POLL_S)
    return stopped_by


def first_wish(numbers: Sequence[int]) -> Optional[int]:
    """Picks the first signal that asks for the end; None if none of them does."""
    return next((number for number in numbers if number in _WISHES), None)


class _Agenda:
    """Signals to be sent later, each with the reason that put it there; a reason counts once."""

    def __init__(self) -> None:
        self._reasons: List[str] = []
        self._entries: List[Tuple[float, int]] = []

    def __contains__(self, reason: str) -> bool:
        return reason in self._reasons

    def plan(self, reason: str, entries: List[Tuple[float, int]]) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
            self._entries = sorted(self._entries + entries)

    def due(self, now: float) -> List[int]:
        numbers = [number for at, number in self._entries if at <= now]
        self._entries = self._entries[len(numbers) :]
        return numbers
