"""Where the files of ready data sets lie on this machine: places, first one first, and the forms of the files there.

Synopsis::

    files = find(spec, places(spec, data_dir=None, environ=os.environ))     # None: nowhere
    files.paths, files.place.label              # (Path("/.../train-images-idx3-ubyte.gz"), ...), "hpcdl's cache"
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.data_sets import Form, Spec, named_places, no_folder
from hpcdl.common.errors import BadInput
from hpcdl.common.files import is_there


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


def places(spec: Spec, data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> List[Place]:
    """Returns the places to look in, first one first."""
    named = named_places(data_dir, environ)
    listed = [Place(label, folder, named_by_user=True) for label, folder in named]
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
        try:
            files = _find_in(spec, place)
        except OSError as problem:  # such as a folder that may not be entered
            if place.named_by_user:
                raise BadInput(
                    f"{place} must be a folder that can be read; received {problem.filename or place.folder}"
                    f" ({problem.strerror or problem}); pass one of your own with the files of {spec.name}, or leave"
                    " it out"
                ) from problem
            continue
        if files is not None:
            return files
    return None


def _find_in(spec: Spec, place: Place) -> Optional[Files]:
    if place.named_by_user and not is_there(stat.S_ISDIR, place.folder):
        raise no_folder(str(place), spec.name)
    lacking = []
    # MNIST and Fashion-MNIST have files of the same names, so a folder of its own name comes first.
    for folder in (place.folder / spec.name, place.folder / spec.name.replace("_", "-"), place.folder):
        for form in spec.forms:
            paths, missing = _look_for(form, folder)
            if not missing:
                return Files(form, tuple(paths), place)
            if paths:
                lacking.append(
                    f"{place.label}: expected {len(form.files)} files in {folder}, found {len(paths)};"
                    f" add {', '.join(missing)}{' (or .gz)' if form.may_be_gzipped else ''}"
                )
    if lacking and place.named_by_user:
        raise BadInput(lacking[0])
    return None


def paths_of(form: Form, folder: Path) -> Optional[List[Path]]:
    """Returns the paths of a form's files; None if they are not (all) in the folder."""
    paths, missing = _look_for(form, folder)
    return None if missing else paths


def _look_for(form: Form, folder: Path) -> Tuple[List[Path], List[str]]:
    """Returns the paths of those of a form's files that are in a folder, and the names of the others."""
    suffixes = ("", ".gz") if form.may_be_gzipped else ("",)
    paths, missing = [], []
    for file in form.files:
        path = next(
            (folder / (file + s) for s in suffixes if is_there(stat.S_ISREG, folder / (file + s))), None
        )
        if path is None:
            missing.append(file)
        else:
            paths.append(path)
    return paths, missing
