"""Lets one rank at a time do what would be the same work for all: fetching, unpacking.

Several ranks, perhaps of several nodes on one file system, come here at once: one works, the others wait.

Synopsis::

    with one_at_a_time(cache / ".fashion_mnist.lock") as turn:
        if turn.reason:                          # the one before us tried, and this is why it failed
            ...
        turn.failed("no network")
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Iterator, Optional, TextIO


class Turn:
    """One rank's turn under the lock.

    Attributes:
        reason: why the rank for which this one waited failed; None if it did not, or there was none.
    """

    def __init__(self, file: Optional[TextIO], reason: Optional[str]):
        self._file = file
        self.reason = reason

    def failed(self, reason: str) -> None:
        """Tells those who wait, so that each of them need not wait for the same dead network in turn."""
        if self._file is not None:
            self._file.write(reason)
            self._file.flush()


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[Turn]:
    """Lets one process at a time through, over all nodes that share the file system where that can lock.

    Where it cannot (Lustre without ``-o flock``), all go through: files are put in place by atomic renames,
    so the lock only spares work.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+", encoding="utf-8") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield Turn(None, None)
            return
        file.seek(0)
        reason = file.read() if waited else ""
        if not reason:  # Old news: nobody was at work when this process came.
            file.truncate(0)
        yield Turn(file, reason or None)
