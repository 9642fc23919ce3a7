"""The table of ready data sets: the names of their files, how these are read, and what must be in them.

A further data set is a further row in ``_SPECS``; a further file form is a further reader.

Synopsis::

    spec = spec_of("mnist")                     # BadInput with near names if there is no such set
    arrays = spec.forms[0].read(paths)
    owner_of(idx_sha256(arrays["x_train"]))     # "x_train of mnist"
"""

from __future__ import annotations

import difflib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.runtime.idx import DamagedFile, read_idx

Arrays = Dict[str, np.ndarray]
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Form:
    """One form in which a data set lies in a folder.

    Attributes:
        files: the files' names; each may also end in ``.gz`` if ``may_be_gzipped``.
        read: makes arrays of the files' paths, given in the same order. Raises DamagedFile.
    """

    files: Tuple[str, ...]
    read: Callable[[Sequence[Path]], Arrays]
    may_be_gzipped: bool = False


@dataclass(frozen=True)
class Spec:
    """What hpcdl knows of a data set before it has seen it.

    Attributes:
        sha256: of each array in idx form. For the idx sets this is also the hash of the gunzipped file.
        forms: in which its files come.
        debian_package, debian_folder: Debian's package that has it, if any, and the folder where it lies.
    """

    name: str
    num_classes: int
    sha256: Mapping[str, str]
    forms: Tuple[Form, ...]
    debian_package: Optional[str] = None
    debian_folder: Optional[Path] = None


def names() -> List[str]:
    """Returns the names of the ready data sets."""
    return sorted(_SPECS)


def spec_of(name: str) -> Spec:
    """Returns what is known of the data set ``name``; BadInput with near names if that is nothing."""
    if name not in _SPECS:
        near = difflib.get_close_matches(name, _SPECS)
        hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these"
        raise BadInput(f"unknown data set {name!r}; known are {', '.join(names())}; {hint}")
    return _SPECS[name]


def owner_of(sha256: str) -> Optional[str]:
    """Names the known array that has this checksum: MNIST and Fashion-MNIST are easily mixed up."""
    for spec in _SPECS.values():
        for name, known in spec.sha256.items():
            if known == sha256:
                return f"{name} of {spec.name}"
    return None


def _read_idx_files(paths: Sequence[Path]) -> Arrays:
    return {name: read_idx(path) for name, path in zip(ARRAY_NAMES, paths)}


def _read_npz(paths: Sequence[Path]) -> Arrays:
    """Reads plain arrays only: a pickle in the file is an error, never run."""
    try:
        with open(paths[0], "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in ARRAY_NAMES}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFile(
            f"{paths[0]}: expected plain arrays {', '.join(ARRAY_NAMES)}, found {error}"
        ) from error


_IDX = Form(
    (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
    _read_idx_files,
    may_be_gzipped=True,
)

_SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "mnist",
            10,
            sha256={
                "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
            forms=(_IDX, Form(("mnist.npz",), _read_npz)),
        ),
        Spec(
            "fashion_mnist",
            10,
            sha256={
                "x_train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "y_train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "x_test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "y_test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
            forms=(_IDX,),
            debian_package="dataset-fashion-mnist",
            debian_folder=Path("/usr/share/datasets/fashion-mnist"),
        ),
    )
}
