"""Where the files of ready data sets lie on this machine: places, first one first, and the forms of the files there.

Synopsis::

    files = find(spec, places(spec, data_dir=None, environ=os.environ))     # None: nowhere
    files.paths, files.place.label              # (Path("/.../train-images-idx3-ubyte.gz"), ...), "hpcdl's cache"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.data_sets import Form, Spec, no_folder
from hpcdl.common.errors import BadInput


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
            raise no_folder(str(place), spec.name)
        # MNIST and Fashion-MNIST have files of the same names, so a folder of its own name comes first.
        for folder in (place.folder / spec.name, place.folder / spec.name.replace("_", "-"), place.folder):
            for form in spec.forms:
                paths = paths_of(form, folder, place)
                if paths is not None:
                    return Files(form, tuple(paths), place)
    return None


def paths_of(form: Form, folder: Path, place: Place) -> Optional[List[Path]]:
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
