"""Passes on what a rank writes to standard output, which may take nothing now, or nothing any more.

Who reads must not hold the run up, nor end it: a pager may stand still, a terminal may be gone, a disk full. What is
not passed on is in the run's log.

Synopsis::

    open_closed_streams()                      # before anything else
    taken = write_to_stdout(data)              # of so many bytes; the rest is for later
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from typing import Iterator

from hpcdl.common.saying import say

#: A reader who reads makes room within this time.
_ROOM_MS = 10
#: What has room for anything has room for so much: a pipe does (PIPE_BUF), and a socket.
_AT_ONCE_BYTES = 4096


def open_closed_streams() -> None:
    """Lets what is written to a standard stream that was closed (``>&-``) go nowhere; what is read there is nothing.

    Otherwise the next file that anybody opens would take its number, and what is written to it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def write_to_stdout(data: bytes) -> int:
    """Writes as much as there is room for, without waiting for a reader who has paused.

    Returns:
        How many bytes were taken: all of them, too, where nobody can have them any more.
    """
    taken = 0
    try:
        sys.stdout.flush()
        with _without_waiting() as descriptor:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            while taken < len(data) and room.poll(_ROOM_MS):
                taken += os.write(descriptor, data[taken : taken + _AT_ONCE_BYTES])
    except BlockingIOError:  # for less than a line's end
        return taken
    except OSError as problem:
        _give_up(problem)
        return len(data)
    return taken


@contextlib.contextmanager
def _without_waiting() -> Iterator[int]:
    """Gives a descriptor of standard output on which a write that has begun does not wait either.

    A terminal with room for a little takes that and waits with the rest, unless it was opened so that it does not. It
    is opened once more for that, since a descriptor that we were given is not ours alone.
    """
    own = None
    if os.isatty(1):
        with contextlib.suppress(OSError):  # another user's
            own = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        yield 1 if own is None else own
    finally:
        if own is not None:
            os.close(own)


def _give_up(problem: OSError) -> None:
    """Lets go of standard output, and of standard error where that goes the same way."""
    lost = [1, 2] if _is_shared() else [1]
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in lost:
        os.dup2(nothing, descriptor)
    os.close(nothing)
    if problem.errno != errno.EPIPE:  # whoever read has left (`| head`), and knows it
        with contextlib.suppress(OSError):
            say(
                f"standard output takes nothing any more: {problem.strerror}; the run goes on, its log has everything"
            )


def _is_shared() -> bool:
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:  # there is none
        return False
