"""Ready data sets: finds their files on this machine or fetches them, checks them, and returns plain arrays.

Synopsis::

    data = load("fashion_mnist", data_dir="/scratch/data")
    data.x_train.shape, data.source             # (60000, 28, 28) uint8, as stored; and where it came from

Looked up in this order: ``--data-dir``, ``$HPCDL_DATA``, hpcdl's cache, Keras' cache, Debian's package
(installed, or fetched without root into hpcdl's cache), the address that Keras downloads from. Whatever the place,
the archive's or the arrays' SHA-256 must be the known one. The sets themselves are in ``hpcdl.common.data_sets``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.data_sets import ARRAY_NAMES, Form, Spec, owner_of, spec_of
from hpcdl.common.errors import BadInput
from hpcdl.runtime.debian import fetch_debian
from hpcdl.runtime.fetching import NotFetched, download
from hpcdl.runtime.forms import READERS, Arrays
from hpcdl.runtime.idx import DamagedFile, idx_sha256
from hpcdl.runtime.ragged import Ragged
from hpcdl.runtime.turns import one_at_a_time
from hpcdl.runtime.unpacking import unpacked_once

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory, split as in ``tf.keras.datasets``; its arrays are read-only.

    Attributes:
        name: as in ``tf.keras.datasets``.
        num_classes: labels are 0 to num_classes - 1; None: y is a number.
        x_train, y_train, x_test, y_test: as stored, e.g. uint8 (60000, 28, 28) and uint8 (60000,).
        source: where it came from, for the run's record.
        sha256: of what was checked, by its name: of the archive, or of each array in idx form.
    """

    name: str
    num_classes: Optional[int]
    x_train: Union[np.ndarray, Ragged]
    y_train: np.ndarray
    x_test: Union[np.ndarray, Ragged]
    y_test: np.ndarray
    source: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """A folder in which data sets may lie.

    Attributes:
        label: as the user knows it.
        named_by_user: a missing folder, or a missing file of several, is then an error.
    """

    label: str
    folder: Path
    named_by_user: bool = False

    def __str__(self) -> str:
        return f"{self.label} {self.folder}"


@dataclass(frozen=True)
class Files:
    """The files of a data set, in one of its forms, in a place; not yet read."""

    form: Form
    paths: Tuple[Path, ...]
    place: Place

    @property
    def num_bytes(self) -> int:
        """Their size."""
        return sum(path.stat().st_size for path in self.paths)


def load(
    name: str, data_dir: Union[str, Path, None] = None, environ: Mapping[str, str] = os.environ
) -> DataSet:
    """Returns the data set ``name`` from the first place that has it, fetching it if none has.

    Args:
        name: one of ``hpcdl.common.data_sets.names()``.
        data_dir: a folder to look in first; the files may also lie in its folder ``name``.
        environ: read for HPCDL_DATA, HPCDL_CACHE, KERAS_HOME and HOME.

    Raises:
        BadInput: unknown name, a damaged or foreign file, or no data and no way to get it.
    """
    return obtain(spec_of(name), data_dir, environ)


def obtain(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> DataSet:
    """Returns the data set of ``spec``; otherwise like ``load``."""
    looked_in = places(spec, data_dir, environ)
    cache = cache_place(environ)
    files = find(spec, looked_in) or fetch(spec, cache, looked_in)
    return read(spec, files, cache.folder)


def places(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> List[Place]:
    """Returns the places to look in, first one first."""
    listed = []
    if data_dir is not None:
        listed.append(Place("--data-dir", Path(data_dir), named_by_user=True))
    if environ.get("HPCDL_DATA"):
        listed.append(Place("$HPCDL_DATA", Path(environ["HPCDL_DATA"]), named_by_user=True))
    listed.append(cache_place(environ))
    keras_home = environ.get("KERAS_HOME") or home_folder(environ) / ".keras"
    listed.append(Place("Keras' cache", Path(keras_home) / "datasets"))
    if spec.debian_folder is not None:
        listed.append(Place("Debian's package", spec.debian_folder))
    return listed


def cache_place(environ: Mapping[str, str]) -> Place:
    """Returns the folder into which hpcdl puts the data that it fetches."""
    return Place("hpcdl's cache", cache_folder(environ) / "data")


def find(spec: Spec, looked_in: Sequence[Place]) -> Optional[Files]:
    """Returns the files of the data set in the first of the places that has it; None if none has it."""
    for place in looked_in:
        if place.named_by_user and not place.folder.is_dir():
            raise BadInput(f"{place} is no folder; create it with the files of {spec.name}, or leave it out")
        # MNIST and Fashion-MNIST have files of the same names, so a folder of its own name comes first.
        for folder in (place.folder / spec.name, place.folder / spec.name.replace("_", "-"), place.folder):
            for form in spec.forms:
                paths = _paths(form, folder, place)
                if paths is not None:
                    return Files(form, tuple(paths), place)
    return None


def _paths(form: Form, folder: Path, place: Place) -> Optional[List[Path]]:
    """Returns the paths of a form's files; None if they are not (all) in the folder."""
    suffixes = ("", ".gz") if form.may_be_gzipped else ("",)
    paths, missing = [], []
    for file in form.files:
        path = next((folder / (file + s) for s in suffixes if (folder / (file + s)).is_file()), None)
        if path is None:
            missing.append(file)
        else:
            paths.append(path)
    if not missing:
        return paths
    if paths and place.named_by_user:
        raise BadInput(
            f"{place.label}: expected {len(form.files)} files in {folder}, found {len(paths)};"
            f" add {', '.join(missing)}{' (or .gz)' if form.may_be_gzipped else ''}"
        )
    return None


def read(spec: Spec, files: Files, cache: Path) -> DataSet:
    """Reads and checks what ``find`` found.

    Args:
        cache: in which an archive is unpacked, once for all ranks.

    Raises:
        BadInput: a file is damaged, foreign or not readable.
    """
    try:
        arrays, sha256 = checked(spec, files, cache / spec.name)
    except DamagedFile as error:
        cure = "replace it" if files.place.named_by_user else "delete it, and it is fetched again"
        raise BadInput(
            f"{error}; {cure}, or pass --data-dir DIR with the files of {spec.name} in it"
        ) from error
    except OSError as error:
        raise BadInput(
            f"{error.filename or files.paths[0]}: cannot be read ({error.strerror or error}); make it readable,"
            f" or pass --data-dir DIR with the files of {spec.name} in it"
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


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def fetch(spec: Spec, place: Place, looked_in: Sequence[Place]) -> Files:
    """Fetches the data set into a place, unless another process has just done so.

    Args:
        place: hpcdl's cache, or another folder that the user chose.
        looked_in: for the message.

    Raises:
        BadInput: it cannot be had, or the folder cannot be written.
    """
    try:
        with one_at_a_time(place.folder / f".{spec.name}.lock") as turn:
            found = find(spec, [place])
            if found is not None:
                return found
            if turn.reason is not None:
                raise BadInput(_no_data(spec, looked_in, turn.reason))
            failed = []
            for label, way in _ways(spec, place):
                try:
                    way()
                except (NotFetched, DamagedFile) as error:
                    failed.append(f"{label}: {error}")
                else:
                    found = find(spec, [place])
                    if found is not None:
                        return found
            reasons = "; ".join(failed)
            turn.failed(reasons)
            raise BadInput(_no_data(spec, looked_in, reasons))
    except OSError as error:
        raise BadInput(
            f"cannot write data into {place} ({error.strerror or error}); set HPCDL_CACHE to a folder"
            f" that can be written, or pass --data-dir DIR with the files of {spec.name} in it"
        ) from error


def _ways(spec: Spec, place: Place) -> List[Tuple[str, Callable[[], None]]]:
    """Returns the ways to get the data from elsewhere, first one first; each raises NotFetched or DamagedFile."""
    target = place.folder / spec.name
    ways: List[Tuple[str, Callable[[], None]]] = []

    def check(form: Form) -> Callable[[Path], None]:
        def check_in(folder: Path) -> None:
            paths = _paths(form, folder, place)
            if paths is None:
                raise NotFetched(f"it has not all of {', '.join(form.files)}")
            try:
                checked(spec, Files(form, tuple(paths), place), target)
            except DamagedFile as error:  # the folder is a temporary one
                raise DamagedFile(str(error).replace(f"{folder}{os.sep}", "")) from error

        return check_in

    package, package_folder, of_keras = spec.debian_package, spec.debian_folder, spec.download
    if package is not None and package_folder is not None:
        files = [file + ".gz" for file in spec.forms[0].files]
        arguments = (package, package_folder, files, target, check(spec.forms[0]))
        ways.append((f"Debian's package {package}", lambda: fetch_debian(*arguments)))
    if of_keras is not None:
        urls, is_right = of_keras.urls(), check(of_keras.form)
        ways.append(("Keras' download", lambda: download(urls, target, is_right)))
    return ways


def _no_data(spec: Spec, looked_in: Sequence[Place], reasons: str) -> str:
    urls: Dict[str, str] = spec.download.urls() if spec.download is not None else {}
    return (
        f"no data for {spec.name}: looked in {', '.join(map(str, looked_in))}; {reasons}; where there is a network, run"
        f" `hpcdl data fetch {spec.name} --to DIR`, or put {', '.join(urls)} into DIR, and pass it as --data-dir DIR or"
        " HPCDL_DATA"
    )
