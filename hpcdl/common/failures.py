"""Why a rank failed: a small file that the rank writes and that whoever started the ranks reads.

A rank that fails writes ``rank-0007.json`` into the folder named by ``$HPCDL_STATUS_DIR`` *before* it prints
its traceback; the launcher then tells the user about the first failure once, instead of once per rank. One that
has ended well leaves an empty ``rank-0007.ended`` before it parts from the others, for those that still wait for it.

Synopsis::

    write_failure(folder, rank=7, hostname="n2", exit_status=1, error="ValueError: no data", traceback=text)
    failure = first_failure(read_failures(folder))
    note_end(folder, rank=1)
    ranks_ended(folder)         # [1]
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Union

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE
from hpcdl.common.files import replace_text
from hpcdl.common.saying import say

#: What Horovod and its Gloo say in a rank whose only fault is that another rank is gone.
_SAID_BY_SURVIVORS = ("Horovod has been shut down", "gloo/transport/")
#: Said of a report that could not be written; the words of the failure follow.
_CANNOT_WRITE = "cannot write the report"


@dataclass(frozen=True)
class Failure:
    """One rank's own account of its end.

    Attributes:
        rank: Who failed.
        hostname: Where.
        pid: Process id on that host.
        time: Seconds since the epoch, by that host's clock.
        exit_status: What the process is about to exit with.
        error: One line.
        traceback: The Python traceback, if there was one.
        log_bytes: Length of the rank's log when it failed, so that a reader who streams the log knows where
            the traceback begins; None where standard output is not a file.
    """

    rank: int
    hostname: str
    pid: int
    time: float
    exit_status: int
    error: str
    traceback: Optional[str] = None
    log_bytes: Optional[int] = None

    @property
    def is_failure(self) -> bool:
        """Whether the rank failed; one that was stopped in order to be requeued did not."""
        return self.exit_status not in (EXIT_DONE, EXIT_REQUEUE)

    @property
    def is_consequence(self) -> bool:
        """Whether this rank only died because another one did."""
        return is_said_by_survivor(self.error if self.traceback is None else self.error + self.traceback)


def is_said_by_survivor(text: str) -> bool:
    """Whether an error is that of a rank which only lost its connection because another one died."""
    return any(words in text for words in _SAID_BY_SURVIVORS)


def failure_path(folder: Union[str, Path], rank: int) -> Path:
    """Names the report of one rank."""
    return Path(folder) / f"rank-{rank:04d}.json"


def write_failure(
    folder: Union[str, Path],
    *,
    rank: int,
    hostname: str,
    exit_status: int,
    error: str,
    traceback: Optional[str] = None,
) -> bool:
    """Reports the end of this process; call it before the traceback is printed.

    A report that cannot be written must not hide the error that it reports, so a full disk is said on
    standard error and nothing is raised.

    Returns:
        Whether the report was written.
    """
    failure = Failure(
        rank=rank,
        hostname=hostname,
        pid=os.getpid(),
        time=time.time(),
        exit_status=exit_status,
        error=error,
        traceback=traceback,
        log_bytes=_log_bytes(),
    )
    path = failure_path(folder, rank)
    try:
        replace_text(path, json.dumps(asdict(failure), indent=1) + "\n")
    except OSError as problem:
        say(f"rank {rank}: {_CANNOT_WRITE} {path}: {problem}")
        return False
    return True


def read_failure(path: Path) -> Optional[Failure]:
    """Reads one report; None if there is none.

    A damaged report still says that there was a failure: its text becomes the error.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    try:
        return Failure(**json.loads(text))
    except (ValueError, TypeError):
        error = "its report is unreadable: " + " ".join(text.split())[:200]
        return Failure(rank_of(path), "?", 0, time.time(), EXIT_FAILED, error)


def read_failures(folder: Union[str, Path]) -> List[Failure]:
    """Reads the reports of failures in a folder, in the order of ranks."""
    reports = (read_failure(path) for path in sorted(Path(folder).glob("rank-*.json"), key=rank_of))
    return [report for report in reports if report is not None and report.is_failure]


def unwritten_error(lines: Sequence[str]) -> Optional[str]:
    """Finds in a rank's log the error that it said where its report could not be written; None: there is none."""
    starts = [number for number, line in enumerate(lines) if _is_of_hpcdl(line) and _CANNOT_WRITE in line]
    if not starts:
        return None
    lines = lines[starts[-1] :]
    said = [line for line in lines[1:] if _is_of_hpcdl(line)]
    return said[-1].partition(" ")[2] if said else lines[-1]  # which ends a traceback


def _is_of_hpcdl(line: str) -> bool:
    return line.startswith("hpcdl: ")


def first_failure(failures: Iterable[Failure]) -> Optional[Failure]:
    """Picks the cause: the earliest report of a rank that did not merely follow another one into death."""
    return min(
        failures, key=lambda failure: (failure.is_consequence, failure.time, failure.rank), default=None
    )


def note_end(folder: Union[str, Path], rank: int) -> None:
    """Notes that a rank has ended well; who cannot note it has ended well all the same."""
    with contextlib.suppress(OSError):
        failure_path(folder, rank).with_suffix(".ended").touch()


def ranks_ended(folder: Union[str, Path]) -> List[int]:
    """Lists the ranks that have ended well."""
    return sorted(rank_of(path) for path in Path(folder).glob("rank-*.ended"))


def rank_of(path: Path) -> int:
    """Gives the number of the rank that a file such as ``rank-0007.log`` is of."""
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _log_bytes() -> Optional[int]:
    """Length of the file that standard output goes to, once everything written so far has reached it."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        described = os.fstat(1)
    except (OSError, ValueError, AttributeError):  # closed, or replaced by something that is no file
        return None
    return described.st_size if stat.S_ISREG(described.st_mode) else None
