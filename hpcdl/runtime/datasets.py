"""Ready data sets: finds their files on this machine or fetches them, checks them, and returns plain arrays.

Synopsis::

    data = load("fashion_mnist", data_dir="/scratch/data")
    data.x_train.shape, data.source             # (60000, 28, 28) uint8, as stored; and where it came from

Looked up in this order: ``--data-dir``, ``$HPCDL_DATA``, hpcdl's cache, Keras' cache, Debian's package
(installed, or fetched without root into hpcdl's cache), the address that Keras downloads from. Whatever the place,
the archive's or the arrays' SHA-256 must be the known one. The sets themselves are in ``hpcdl.common.data_sets``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.data_sets import Form, Spec, spec_of
from hpcdl.common.errors import BadInput
from hpcdl.runtime.data_files import Files, Place, cache_place, find, paths_of, places
from hpcdl.runtime.data_reading import DataSet, checked, read
from hpcdl.runtime.debian import fetch_debian
from hpcdl.runtime.fetching import NotFetched, download
from hpcdl.runtime.idx import DamagedFile
from hpcdl.runtime.ragged import Ragged
from hpcdl.runtime.turns import one_at_a_time


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


def load_data(name: str, data_dir: Union[str, Path, None] = None) -> Any:
    """Gives what ``tf.keras.datasets.NAME.load_data()`` gives; on several ranks one fetches the data for all.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``, ``boston_housing``, ``imdb`` or ``reuters``.
        data_dir: A folder to look in first (docs/data.md).

    Returns:
        ``(x_train, y_train), (x_test, y_test)``, arrays as stored, which cannot be changed in place.

    Raises:
        BadInput: Unknown name, a damaged or foreign file, or no data and no way to get it.
    """
    data = load(name, data_dir)
    x_train, x_test = (x.lists() if isinstance(x, Ragged) else x for x in (data.x_train, data.x_test))
    return (x_train, data.y_train), (x_test, data.y_test)


def obtain(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> DataSet:
    """Returns the data set of ``spec``; otherwise like ``load``."""
    looked_in = places(spec, data_dir, environ)
    cache = cache_place(environ)
    files = find(spec, looked_in) or fetch(spec, cache, looked_in)
    return read(spec, files, cache.folder)


def fetch(spec: Spec, place: Place, looked_in: Sequence[Place], cure: Optional[str] = None) -> Files:
    """Fetches the data set into a place, unless another process has just done so.

    Args:
        place: hpcdl's cache, or another folder that the user chose.
        looked_in: for the message.
        cure: what to do where the folder cannot be written; None: what a run can.

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
        cure = cure or f"set HPCDL_CACHE to one, or pass --data-dir DIR with the files of {spec.name} in it"
        raise BadInput(
            f"{place.label} must be a folder that can be written; received {place.folder}"
            f" ({error.strerror or error}); {cure}"
        ) from error


def _ways(spec: Spec, place: Place) -> List[Tuple[str, Callable[[], None]]]:
    """Returns the ways to get the data from elsewhere, first one first; each raises NotFetched or DamagedFile."""
    target = place.folder / spec.name
    ways: List[Tuple[str, Callable[[], None]]] = []

    def check(form: Form) -> Callable[[Path], None]:
        def check_in(folder: Path) -> None:
            paths = paths_of(form, folder)
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
