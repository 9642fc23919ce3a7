"""What the doctor has found of images, kept in the cache, so that a run takes one that is known to work.

A verdict is of a file as it was: where its size or time differ, there is none.

Synopsis::

    note_image("/images/tf_23.04.sif", True, os.environ, ways=["mpi"])          # the doctor
    image = find_image(container, None, tried=read_tried(os.environ))           # a run
    read_ways(image, os.environ)                                                # ("mpi",)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from hpcdl.common.cache import cache_folder
from hpcdl.common.records import write_json


def note_image(
    image: str, passed: bool, environ: Mapping[str, str], ways: Optional[Sequence[str]] = None
) -> None:
    """Keeps what an image is like. Nothing is kept of what is no file here, or where the cache cannot be written.

    Args:
        image: The file.
        passed: Whether it is well.
        environ: Says where the cache is.
        ways: By which of ``gloo`` and ``mpi`` the processes of its Horovod can meet; None: not known.
    """
    state = _state(image)
    if state is None:
        return
    path = _file(environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**_read(path), os.path.realpath(image): {**state, "passed": passed, "ways": ways}})
    except OSError:
        return


def read_tried(environ: Mapping[str, str]) -> Dict[str, bool]:
    """Gives, by real path, whether the doctor has passed an image, of those that are as they were."""
    return {
        path: bool(kept.get("passed"))
        for path, kept in _read(_file(environ)).items()
        if _is_as_it_was(path, kept)
    }


def read_ways(image: Optional[str], environ: Mapping[str, str]) -> Optional[Tuple[str, ...]]:
    """Gives by which of ``gloo`` and ``mpi`` an image's Horovod can meet; None: the doctor has not seen it as it is."""
    path = os.path.realpath(image) if image is not None else ""
    kept = _read(_file(environ)).get(path)
    if kept is None or not _is_as_it_was(path, kept) or kept.get("ways") is None:
        return None
    return tuple(kept["ways"])


def _is_as_it_was(path: str, kept: Mapping[str, Any]) -> bool:
    return _state(path) == {name: kept.get(name) for name in ("bytes", "modified")}


def _file(environ: Mapping[str, str]) -> Path:
    return cache_folder(environ) / "images.json"


def _read(path: Path) -> Dict[str, Dict[str, Any]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    images = tree.items() if isinstance(tree, dict) else ()
    return {image: kept for image, kept in images if isinstance(kept, dict)}


def _state(image: str) -> Optional[Dict[str, Any]]:
    try:
        status = os.stat(image)
    except OSError:
        return None
    return {"bytes": status.st_size, "modified": status.st_mtime}
