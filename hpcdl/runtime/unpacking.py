"""Unpacks an archive once for all ranks: the first one reads it and leaves plain arrays, the others read those.

Unpickling texts takes seconds and some hundred megabytes, which each rank of a node would spend anew.

Synopsis::

    arrays = unpacked_once(cache / "imdb", sha256, lambda: READERS["imdb_npz"](paths))
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Callable, Dict, Optional

import numpy as np

from hpcdl.runtime.forms import Arrays
from hpcdl.runtime.ragged import Ragged
from hpcdl.runtime.turns import one_at_a_time

#: Goes up when the same archive is to be unpacked into other arrays.
_VERSION = 1


def unpacked_once(folder: Path, sha256: str, read: Callable[[], Arrays]) -> Arrays:
    """Gives the arrays of an archive.

    Args:
        folder: Where they are left, uncompressed; where it cannot be written, each process reads for itself.
        sha256: Of the archive.
        read: Reads the archive.
    """
    path = folder / f"unpacked-{sha256[:16]}-{_VERSION}.npz"
    arrays: Optional[Arrays] = None
    with suppress(OSError), one_at_a_time(folder / ".unpacking.lock"):
        arrays = _load(path)
        if arrays is None:
            arrays = read()
            _save(path, arrays)
    return read() if arrays is None else arrays


def _load(path: Path) -> Optional[Arrays]:
    """Reads what `_save` wrote; None: it is not there, or damaged, which the sums in a zip file show."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile):
        return None
    arrays: Arrays = {name: array for name, array in stored.items() if "." not in name}
    for name in stored:
        if name.endswith(".ends"):
            base = name[: -len(".ends")]
            arrays[base] = Ragged(stored[f"{base}.values"], stored[name])
    return arrays


def _save(path: Path, arrays: Arrays) -> None:
    plain: Dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if isinstance(array, Ragged):
            plain.update({f"{name}.values": array.values, f"{name}.ends": array.ends})
        else:
            plain[name] = array
    number, temporary = tempfile.mkstemp(prefix=".unpacking-", dir=path.parent)
    try:
        with open(number, "wb") as stream:
            np.savez(stream, **plain)  # type: ignore[arg-type]  # they are no allow_pickle
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
