"""Whether the nodes share a folder: rank 0 leaves a file there, and the others look for it. No Horovod is needed.

That a rank can write into a folder does not say so: each node has a /tmp of its own.

Synopsis, on every rank, with the same folders in the same order::

    problems = look_for_shared(folders, status_dir, rank)     # [None, "what rank 0 ..."]
    ...                                                       # each says what it saw, in status_dir
    tidy_shared(folders, status_dir, world_size)              # rank 0
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import List, Optional, Sequence

from hpcdl.common.records import write_json

_LEFT = "shared.json"
#: Ranks in images start one after the other.
_WAIT_S = 60.0
#: A network file system may tell a little later.
_APPEARS_S = 10.0
_POLL_S = 0.1


def look_for_shared(
    folders: Sequence[str],
    status_dir: Path,
    rank: int,
    wait_s: float = _WAIT_S,
    appears_s: float = _APPEARS_S,
) -> List[Optional[str]]:
    """Leaves a file in each folder (rank 0), or looks for it (the others); gives what is wrong, None: nothing.

    Args:
        folders: To try.
        status_dir: The job's own, which all ranks see.
        rank: Of this process.
        wait_s: How long the others wait for rank 0. If it does not come, that is not the folders' fault.
        appears_s: How long they look.
    """
    note = status_dir / _LEFT
    if rank == 0:
        name = f".hpcdl-{uuid.uuid4().hex}"
        write_json(note, {"name": name, "left": [_leave(folder, name) for folder in folders]})
        return [None] * len(folders)
    if not _comes([note], wait_s):
        return [None] * len(folders)
    tree = json.loads(note.read_text(encoding="utf-8"))
    left = [Path(folder) / tree["name"] for folder, was_left in zip(folders, tree["left"]) if was_left]
    _comes(left, appears_s)
    return [
        "what rank 0 writes there is not seen here"
        if was_left and not (Path(folder) / tree["name"]).exists()
        else None
        for folder, was_left in zip(folders, tree["left"])
    ]


def tidy_shared(folders: Sequence[str], status_dir: Path, world_size: int, wait_s: float = _WAIT_S) -> None:
    """Takes rank 0's files away, when all ranks have said what they saw (``seen-*.json``), or too late."""
    _comes([status_dir / f"seen-{rank:04d}.json" for rank in range(world_size)], wait_s)
    name = json.loads((status_dir / _LEFT).read_text(encoding="utf-8"))["name"]
    for folder in folders:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))


def _leave(folder: str, name: str) -> bool:
    try:
        Path(folder, name).write_text("rank 0\n", encoding="ascii")
    except OSError:
        return False
    return True


def _comes(paths: Sequence[Path], wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while not all(path.exists() for path in paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
