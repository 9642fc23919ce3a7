"""Reads the files of ready data sets, and holds them against the SHA-256 that is known of them.

Synopsis::

    data = read(spec, files, cache)             # BadInput if a file is damaged or foreign
    data.x_train.shape                          # (60000, 28, 28), uint8, as stored
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

import numpy as np

from hpcdl.common.data_sets import ARRAY_NAMES, Spec, owner_of
from hpcdl.common.digests import file_sha256
from hpcdl.common.errors import BadInput
from hpcdl.runtime.data_files import Files
from hpcdl.runtime.forms import READERS, Arrays
from hpcdl.runtime.idx import DamagedFile, idx_sha256
from hpcdl.runtime.ragged import Ragged
from hpcdl.runtime.unpacking import unpacked_once


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory, split as in ``tf.keras.datasets``; its arrays are read-only.

    Attributes:
        name: as in ``tf.keras.datasets``.
        num_classes: labels are 0 to num_classes - 1; None: y is a number.
        x_train, y_train, x_test, y_test: as stored, e.g. uint8 (60000, 28, 28) and uint8 (60000,); x of texts is
            `Ragged`.
        source: where it came from, for the run's record.
        sha256: of what was checked, by its name: of the archive, or of each array in idx form.
    """

    name: str
    num_classes: Optional[int]
    x_train: Any
    y_train: np.ndarray
    x_test: Any
    y_test: np.ndarray
    source: str
    sha256: Mapping[str, str]


def read(spec: Spec, files: Files, cache: Path, instead: Optional[str] = None) -> DataSet:
    """Reads and checks what ``find`` found.

    Args:
        cache: in which an archive is unpacked, once for all ranks.
        instead: how the user gets other files than these; None: as a run, or `hpcdl data list`, does.

    Raises:
        BadInput: a file is damaged, foreign or not readable.
    """
    instead = instead or f"pass --data-dir DIR with the files of {spec.name} in it"
    try:
        arrays, sha256 = checked(spec, files, cache / spec.name)
    except DamagedFile as error:
        cure = "replace it" if files.place.named_by_user else "delete it, and it is fetched again"
        raise BadInput(f"{error}; {cure}, or {instead}") from error
    except OSError as error:
        raise BadInput(
            f"{error.filename or files.paths[0]}: cannot be read ({error.strerror or error}); make it readable,"
            f" or {instead}"
        ) from error
    for array in arrays.values():
        for plain in (array.values, array.ends) if isinstance(array, Ragged) else (array,):
            plain.flags.writeable = False
    source = f"{files.place.label}: {files.paths[0].parent}"
    return DataSet(spec.name, spec.num_classes, **arrays, source=source, sha256=sha256)  # type: ignore[arg-type]


def checked(spec: Spec, files: Files, unpacked: Path) -> Tuple[Arrays, Mapping[str, str]]:
    """Returns the arrays in the files, and the SHA-256 of what was checked.

    Raises:
        DamagedFile: neither a file nor its arrays are the known ones.
    """
    form, paths = files.form, files.paths
    found = None if form.sha256 is None else file_sha256(paths[0])
    is_known = found is not None and found == form.sha256
    if form.holds_pickles:
        if not is_known or found is None:
            raise DamagedFile(f"{paths[0]}: expected a file with SHA-256 {form.sha256}, found {found}")
        return unpacked_once(unpacked, found, lambda: READERS[form.kind](paths)), {paths[0].name: found}
    arrays = READERS[form.kind](paths)
    if is_known and found is not None:
        return arrays, {paths[0].name: found}
    for index, name in enumerate(ARRAY_NAMES):
        try:
            sha256 = idx_sha256(arrays[name])  # type: ignore[arg-type]
        except ValueError as error:
            sha256 = str(error)
        if sha256 != spec.sha256[name]:
            path = paths[index] if len(paths) > 1 else paths[0]
            raise DamagedFile(
                f"{path}: expected {name} of {spec.name} with SHA-256 {spec.sha256[name]},"
                f" found {owner_of(sha256) or sha256}"
            )
    return arrays, spec.sha256
