"""Facts about processes from /proc, and the bond that ends children with their parent. Linux only.

Every child is started as the leader of a session of its own, so "what belongs to this run" is "what is in one
of its sessions": that finds grandchildren too. Process ids are used again by the kernel, so a process is
known by its id *and* its start time, and none that somebody else started is ever touched.

Synopsis::

    leader = identify(child.pid)
    for pid in members([leader]):
        send(pid, signal.SIGKILL)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Collection, List, NamedTuple, Optional

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Process:
    """A process, known for sure: its id, and when it started (clock ticks since boot)."""

    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether it still runs; one of which only the exit status is left does not."""
        now = _read_stat(self.pid)
        return now is not None and not now.is_dead and now.start_ticks == self.start_ticks


class _Stat(NamedTuple):
    is_dead: bool
    session: int
    start_ticks: int


def identify(pid: int) -> Optional[Process]:
    """Gives the process that has this id now; None if there is none."""
    now = _read_stat(pid)
    return None if now is None else Process(pid, now.start_ticks)


def members(leaders: Collection[Process]) -> List[int]:
    """Lists the living processes in the sessions that the given processes lead or led.

    An id is not used again while a session has it for a name; once another process has it, the session is
    gone.
    """
    own = set()
    for leader in leaders:
        now = _read_stat(leader.pid)
        if now is None or now.start_ticks == leader.start_ticks:
            own.add(leader.pid)
    pids = []
    for name in os.listdir("/proc"):
        stat = _read_stat(int(name)) if name.isdigit() else None
        if stat is not None and not stat.is_dead and stat.session in own:
            pids.append(int(name))
    return pids


def send(pid: int, number: int) -> None:
    """Sends a signal to a process that may be gone by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_with_parent(number: int = signal.SIGTERM) -> Callable[[], None]:
    """Makes a ``preexec_fn``: the child gets a signal if its parent is killed without a chance to end it.

    Args:
        number: The signal. SIGTERM is for what has children of its own to end; a rank in a fit only notes it, and one
            that waits for others would stay for ever.
    """
    prctl = ctypes.CDLL(None).prctl  # looked up here, since little may be done between fork and exec

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, number)

    return bind


def _read_stat(pid: int) -> Optional[_Stat]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): "pid (name) state ppid pgrp session ... starttime"; the name may hold ")" and spaces.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(is_dead=fields[0] in "ZX", session=int(fields[3]), start_ticks=int(fields[19]))
