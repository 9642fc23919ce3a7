"""Ready data sets: finds their files on this machine or fetches them, checks them, and returns plain arrays.

Synopsis::

    data = load("fashion_mnist", data_dir="/scratch/data")
    data.x_train.shape, data.source             # (60000, 28, 28) uint8, as stored; and where it came from

Looked up in this order: ``--data-dir``, ``$HPCDL_DATA``, hpcdl's cache, Keras' cache, Debian's package
(installed, or fetched without root into hpcdl's cache), Keras' own download. Whatever the place, the arrays'
SHA-256 must be the known one. The sets themselves are in ``dataset_specs``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.errors import BadInput
from hpcdl.runtime import fetching
from hpcdl.runtime.dataset_specs import ARRAY_NAMES, Arrays, Form, Spec, owner_of, spec_of
from hpcdl.runtime.idx import DamagedFile, idx_sha256


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory, split as in ``tf.keras.datasets``.

    Attributes:
        name: as in ``tf.keras.datasets``.
        num_classes: labels are 0 to num_classes - 1.
        x_train, y_train, x_test, y_test: as stored, e.g. uint8 (60000, 28, 28) and uint8 (60000,).
        source: where it came from, for the run's record.
        sha256: of each array in idx form, by its name.
    """

    name: str
    num_classes: int
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
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


def load(
    name: str, data_dir: Union[str, Path, None] = None, environ: Mapping[str, str] = os.environ
) -> DataSet:
    """Returns the data set ``name`` from the first place that has it, fetching it if none has.

    Args:
        name: one of ``dataset_specs.names()``.
        data_dir: a folder to look in first; the files may also lie in its folder ``name``.
        environ: read for HPCDL_DATA, HPCDL_CACHE, KERAS_HOME and HOME.

    Raises:
        BadInput: unknown name, a damaged or foreign file, or no data and no way to get it.
    """
    return obtain(spec_of(name), data_dir, environ)


def obtain(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> DataSet:
    """Returns the data set of ``spec``; otherwise like ``load``."""
    looked_in = places(spec, data_dir, environ)
    found = find(spec, looked_in)
    if found is None:
        cache = Place("hpcdl's cache", data_cache(environ))
        try:
            with fetching.one_at_a_time(cache.folder / f".{spec.name}.lock") as turn:
                found = find(spec, [cache]) or _fetch(spec, cache, looked_in, turn)
        except OSError as error:
            raise BadInput(
                f"cannot write data into {cache} ({error.strerror or error}); set HPCDL_CACHE to a folder"
                f" that can be written, or pass --data-dir DIR with the files of {spec.name} in it"
            ) from error
    return found


def places(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> List[Place]:
    """Returns the places to look in, first one first."""
    listed = []
    if data_dir is not None:
        listed.append(Place("--data-dir", Path(data_dir), named_by_user=True))
    if environ.get("HPCDL_DATA"):
        listed.append(Place("$HPCDL_DATA", Path(environ["HPCDL_DATA"]), named_by_user=True))
    listed.append(Place("hpcdl's cache", data_cache(environ)))
    keras_home = environ.get("KERAS_HOME") or home_folder(environ) / ".keras"
    listed.append(Place("Keras' cache", Path(keras_home) / "datasets"))
    if spec.debian_folder is not None:
        listed.append(Place("Debian's package", spec.debian_folder))
    return listed


def data_cache(environ: Mapping[str, str]) -> Path:
    """Returns the folder into which hpcdl puts the data that it fetches."""
    return cache_folder(environ) / "data"


def find(spec: Spec, looked_in: Sequence[Place]) -> Optional[DataSet]:
    """Returns the data set from the first of the places that has it, checked; None if none has it."""
    for place in looked_in:
        if place.named_by_user and not place.folder.is_dir():
            raise BadInput(f"{place} is no folder; create it with the files of {spec.name}, or leave it out")
        # MNIST and Fashion-MNIST have files of the same names, so a folder of its own name comes first.
        for folder in (place.folder / spec.name, place.folder / spec.name.replace("_", "-"), place.folder):
            for form in spec.forms:
                paths = _paths(form, folder, place)
                if paths is not None:
                    return _read(spec, form, paths, place)
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


def _read(spec: Spec, form: Form, paths: Sequence[Path], place: Place) -> DataSet:
    try:
        return _checked(
            spec, form.read(paths), f"{place.label}: {paths[0].parent}", [str(path) for path in paths]
        )
    except DamagedFile as error:
        cure = "replace it" if place.named_by_user else "delete it, and it is fetched again"
        raise BadInput(
            f"{error}; {cure}, or pass --data-dir DIR with the files of {spec.name} in it"
        ) from error
    except OSError as error:
        raise BadInput(
            f"{error.filename or paths[0]}: cannot be read ({error.strerror or error}); make it readable,"
            f" or pass --data-dir DIR with the files of {spec.name} in it"
        ) from error


def _checked(spec: Spec, arrays: Arrays, source: str, origins: Sequence[str]) -> DataSet:
    """Returns the data set if each array is the known one.

    Args:
        origins: for each array the file it came from, or one for all.
    """
    for index, name in enumerate(ARRAY_NAMES):
        try:
            found = idx_sha256(arrays[name])
        except ValueError as error:
            found = str(error)
        if found != spec.sha256[name]:
            origin = origins[index] if len(origins) > 1 else origins[0]
            raise DamagedFile(
                f"{origin}: expected {name} of {spec.name} with SHA-256 {spec.sha256[name]},"
                f" found {owner_of(found) or found}"
            )
    return DataSet(spec.name, spec.num_classes, **arrays, source=source, sha256=spec.sha256)


def _fetch(spec: Spec, cache: Place, looked_in: Sequence[Place], turn: fetching.Turn) -> DataSet:
    reasons = turn.reason
    if not reasons:
        failed = []
        for label, fetch in _ways(spec, cache):
            try:
                return fetch()
            except (fetching.NotFetched, DamagedFile) as error:
                failed.append(f"{label}: {error}")
        reasons = "; ".join(failed)
        turn.failed(reasons)
    files = " or ".join(
        ", ".join(form.files) + (" (each may be .gz)" if form.may_be_gzipped else "") for form in spec.forms
    )
    raise BadInput(
        f"no data for {spec.name}: looked in {', '.join(map(str, looked_in))}; {reasons}; where there is a"
        f" network, put {files} into a folder, and pass it as --data-dir DIR or HPCDL_DATA"
    )


def _ways(spec: Spec, cache: Place) -> List[Tuple[str, Callable[[], DataSet]]]:
    """Returns the ways to get the data from elsewhere, first one first.

    Each raises NotFetched or DamagedFile if it was in vain.
    """

    def by_debian(package: str, package_folder: Path) -> DataSet:
        form, target = spec.forms[0], cache.folder / spec.name
        files = [file + ".gz" for file in form.files]
        data = []

        def check(unpacked: Path) -> None:
            arrays = form.read([unpacked / file for file in files])
            source = f"Debian's package {package}, unpacked into {target}"
            data.append(_checked(spec, arrays, source, files))

        fetching.fetch_debian(package, package_folder, files, target, check)
        return data[0]

    def by_keras() -> DataSet:
        return _checked(spec, fetching.fetch_keras(spec.name), "Keras' download", ["the download"])

    ways: List[Tuple[str, Callable[[], DataSet]]] = [("Keras' download", by_keras)]
    package, folder = spec.debian_package, spec.debian_folder
    if package is not None and folder is not None:
        ways.insert(0, (f"Debian's package {package}", lambda: by_debian(package, folder)))
    return ways
