"""Small text files that a reader sees whole, the old one or the new one, never a part; and what is at a path.

Synopsis::

    replace_text(Path("rank-0007.pid"), "4711\\n")
    is_there(stat.S_ISDIR, Path("/scratch/data"))          # OSError: nobody may look
    nearest_existing(Path("/scratch/me/new/folder"))       # /scratch/me
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable


def replace_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name beside it, then renames."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(str(temporary), str(path))


def is_there(kind: Callable[[int], bool], path: Path) -> bool:
    """Says whether there is a file of a kind.

    Raises:
        OSError: That cannot be known; pathlib raises it in some Pythons only.
    """
    try:
        return kind(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def nearest_existing(path: Path) -> Path:
    """Gives the path, or the nearest folder above it that is there: what is made below it will be like it.

    What is in a folder where one may not look is not there.
    """
    return next(one for one in (path, *path.parents) if os.path.exists(one))
