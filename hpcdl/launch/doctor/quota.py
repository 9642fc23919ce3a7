"""What a user may still write into a folder, as far as the host tells: a best effort.

Lustre is asked by ``lfs quota``, other file systems by ``quota``; where neither is there, or the centre has a command
of its own, nothing is known.

Synopsis::

    quota = read_quota("/ocean/me/runs", user="me", printed=what_it_prints, which=shutil.which)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple, TypeVar

from hpcdl.launch.mounts import mount_of, read_mounts

_GB_PER_KB = 1024 / 1e9
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Quota:
    """How much a user has in a file system, of how much. None: no limit."""

    used_gb: float
    limit_gb: Optional[float]
    files: int
    limit_files: Optional[int]

    @property
    def free_gb(self) -> Optional[float]:
        """What may still be written."""
        return None if self.limit_gb is None else self.limit_gb - self.used_gb

    @property
    def free_files(self) -> Optional[int]:
        """Files that may still be made."""
        return None if self.limit_files is None else self.limit_files - self.files

    def describe(self) -> str:
        """Says it in a few words."""
        room = "" if self.limit_gb is None else f" of {self.limit_gb:.1f}"
        files = "" if self.limit_files is None else f" of {self.limit_files}"
        return f"quota {self.used_gb:.1f}{room} GB, {self.files}{files} files"


def read_quota(
    folder: str,
    user: str,
    printed: Callable[[Sequence[str]], str],
    which: Callable[[str], Optional[str]],
    mounts: Optional[str] = None,
) -> Optional[Quota]:
    """Asks for the quota of a user where a folder is.

    Args:
        folder: One that exists.
        user: The user's name.
        printed: Runs a command and gives what it prints, whatever its exit status: by that one quota says that a user
            is over it.
        which: Looks a name up on PATH.
        mounts: The text of /proc/self/mounts; None: of this machine.

    Returns:
        The quota; None, if there is none or nobody tells.
    """
    device, kind = mount_of(os.path.realpath(folder), read_mounts() if mounts is None else mounts)
    argv = ["lfs", "quota", "-q", "-u", user, folder] if kind == "lustre" else ["quota", "-w", "-u", user]
    if which(argv[0]) is None:
        return None
    rows = parse_rows(printed(argv))
    if kind == "lustre":
        return rows[0][1] if rows else None
    return next((quota for name, quota in rows if name == device), None)


def parse_rows(text: str) -> List[Tuple[str, Quota]]:
    """Reads the rows of ``quota -w`` or ``lfs quota``: file system, kilobytes, two limits, grace, files, two limits.

    A star marks what is over a limit, 0 stands for none, and a long name has a line for itself.
    """
    found = []
    for line in re.sub(r"\n\s+(?=[\d*]+\s+\d)", " ", text).splitlines():
        words = line.split()
        numbers = [int(word.strip("*[]")) for word in words[1:] if re.fullmatch(r"\[?\d+\*?\]?", word)]
        if len(words) < 7 or not re.fullmatch(r"\[?\d+\*?\]?", words[1]) or len(numbers) < 6:
            continue
        # Without grace there are six numbers; a grace of its own (6days, none, -) is no number.
        used_kb, soft_kb, hard_kb, files, soft_files, hard_files = numbers[:6]
        found.append(
            (
                words[0],
                Quota(
                    used_kb * _GB_PER_KB,
                    _limit(soft_kb * _GB_PER_KB, hard_kb * _GB_PER_KB),
                    files,
                    _limit(soft_files, hard_files),
                ),
            )
        )
    return found


def _limit(soft: _Number, hard: _Number) -> Optional[_Number]:
    """The lower limit of those that are set: beyond the soft one a grace period runs."""
    given = [value for value in (soft, hard) if value]
    return min(given) if given else None
