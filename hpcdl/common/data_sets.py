"""The table of ready data sets: sizes, the names of their files, where these come from, and what must be in them.

Names and splits are those of ``tf.keras.datasets``. The SHA-256 of archives, and the addresses, are those that Keras'
own sources state; those of arrays are of the idx form in which ``hpcdl.runtime.idx`` writes an array.
A further data set is a further row in ``_SPECS``; a further kind of file a further reader in ``hpcdl.runtime.forms``.

Synopsis::

    spec = spec_of("mnist")                     # BadInput with near names if there is no such set
    spec.download.urls()                        # {"mnist.npz": "https://..."}
    owner_of(sha256)                            # "x_train of mnist"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple, Union

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput

ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")

_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Form:
    """One form in which a data set lies in a folder.

    Attributes:
        kind: how it is read: a key of ``hpcdl.runtime.forms.READERS``.
        files: the files' names; each may also end in ``.gz`` if ``may_be_gzipped``.
        sha256: of its only file. A file that has it needs no check of its arrays.
        holds_pickles: such a file is not opened unless it has the SHA-256.
    """

    kind: str
    files: Tuple[str, ...]
    may_be_gzipped: bool = False
    sha256: Optional[str] = None
    holds_pickles: bool = False


@dataclass(frozen=True)
class Download:
    """Files that can be had from the network, one by one, in a form that the data set has.

    Attributes:
        base_url: what stands before the files' names.
        form: of what is there; its gzipped files where they may be gzipped.
    """

    base_url: str
    form: Form

    def urls(self) -> Dict[str, str]:
        """Gives the address of each file, by its name."""
        suffix = ".gz" if self.form.may_be_gzipped else ""
        return {file + suffix: self.base_url + file + suffix for file in self.form.files}


@dataclass(frozen=True)
class Spec:
    """What hpcdl knows of a data set before it has seen it.

    Attributes:
        num_classes: labels are 0 to num_classes - 1; None: y is a number.
        num_train, num_test: rows.
        forms: in which its files come.
        sha256: of each array in idx form; for the idx sets this is also the hash of the gunzipped file. Empty: only
            an archive with a known SHA-256 is taken.
        download: where Keras gets it.
        debian_package, debian_folder: Debian's package that has it, if any, and the folder where it lies.
    """

    name: str
    description: str
    num_classes: Optional[int]
    num_train: int
    num_test: int
    forms: Tuple[Form, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)
    download: Optional[Download] = None
    debian_package: Optional[str] = None
    debian_folder: Optional[Path] = None


def names() -> List[str]:
    """Returns the names of the ready data sets."""
    return list(_SPECS)


def spec_of(name: str) -> Spec:
    """Returns what is known of the data set ``name``; BadInput with near names if that is nothing."""
    if name not in _SPECS:
        hint = did_you_mean(name, _SPECS, cutoff=0.6).rstrip() or "choose one of these"
        raise BadInput(f"unknown data set {name!r}; known are {', '.join(names())}; {hint}")
    return _SPECS[name]


def named_places(data_dir: Union[str, Path, None], environ: Mapping[str, str]) -> List[Tuple[str, Path]]:
    """Lists the folders that the user has named to look for data in, each with its label; first one first."""
    named = [] if data_dir is None else [("--data-dir", Path(data_dir))]
    if environ.get("HPCDL_DATA"):
        named.append(("$HPCDL_DATA", Path(environ["HPCDL_DATA"])))
    return named


def no_folder(place: str, name: str) -> BadInput:
    """Says that a place which the user named for the data set ``name`` is no folder."""
    return BadInput(f"{place} is no folder; create it with the files of {name}, or leave it out")


def owner_of(sha256: str) -> Optional[str]:
    """Names the known array that has this checksum: MNIST and Fashion-MNIST are easily mixed up."""
    for spec in _SPECS.values():
        for name, known in spec.sha256.items():
            if known == sha256:
                return f"{name} of {spec.name}"
    return None


def _cifar(names: Tuple[str, ...], sha256: str) -> Tuple[Form, ...]:
    return tuple(Form("cifar", (name,), sha256=sha256, holds_pickles=True) for name in names)


_IDX = Form(
    "idx",
    (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
    may_be_gzipped=True,
)
_MNIST_NPZ = Form("npz", ("mnist.npz",))
# Names of the archive at its source, in the cache of Keras 2, and in that of Keras 3.
_CIFAR10 = _cifar(
    ("cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz", "cifar-10-batches-py-target_archive"),
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
_CIFAR100 = _cifar(
    ("cifar-100-python.tar.gz", "cifar-100-python-target_archive"),
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
_BOSTON = Form(
    "boston_npz",
    ("boston_housing.npz",),
    sha256="f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5",
)
_IMDB = Form(
    "imdb_npz",
    ("imdb.npz",),
    sha256="69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f",
    holds_pickles=True,
)
_REUTERS = Form(
    "reuters_npz",
    ("reuters.npz",),
    sha256="d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916",
    holds_pickles=True,
)

_SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            "mnist",
            "digits, gray 28 x 28",
            10,
            60_000,
            10_000,
            forms=(_IDX, _MNIST_NPZ),
            sha256={
                "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
            download=Download(_KERAS, _MNIST_NPZ),
        ),
        Spec(
            "fashion_mnist",
            "clothes, gray 28 x 28",
            10,
            60_000,
            10_000,
            forms=(_IDX,),
            sha256={
                "x_train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "y_train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "x_test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "y_test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
            download=Download(_KERAS, _IDX),
            debian_package="dataset-fashion-mnist",
            debian_folder=Path("/usr/share/datasets/fashion-mnist"),
        ),
        Spec(
            "cifar10",
            "photographs, colour 32 x 32",
            10,
            50_000,
            10_000,
            forms=(*_CIFAR10, Form("npz", ("cifar10.npz",))),
            sha256={
                "x_train": "51c15db370c309e9aa60cf71f835f2ba0f430ea3653f7512d833c9a8e90e0d65",
                "y_train": "bcf3f7b0ce497a33eb58588a0ccbc9b13ae130cf294a800355d9572822e1d43d",
                "x_test": "fc19aa23c64482c6def2138377986c67b6b3a50f8e8c4c6a759b296dc751fa64",
                "y_test": "7d361afe394be7f66d742e4468dcfd7d0262fea004f334e826f2c81b76025e6e",
            },
            download=Download(_TORONTO, _CIFAR10[0]),
        ),
        Spec(
            "cifar100",
            "photographs, colour 32 x 32",
            100,
            50_000,
            10_000,
            forms=_CIFAR100,
            download=Download(_TORONTO, _CIFAR100[0]),
        ),
        Spec(
            "boston_housing",
            "house prices, 13 numbers",
            None,
            404,
            102,
            forms=(_BOSTON,),
            sha256={
                "x_train": "d221ee500679d5ca148369a0f767b172ec9b74c99236ac02172f45042a737ad9",
                "y_train": "3edfd7edc9e6bb7903aa00143e6370e759c2a1bd5e91a36e5c98a55f6d673c7e",
                "x_test": "bceafd38ba108e1924ee044cc0eda93fb6849b5d2a8c2aa226ff9da99e57b28e",
                "y_test": "0c42b4bb6115f1e88546cfce40639393aeb10653fadb956bd704556ba6e9ad2c",
            },
            download=Download(_KERAS, _BOSTON),
        ),
        Spec(
            "imdb",
            "film reviews, words",
            2,
            25_000,
            25_000,
            forms=(_IMDB,),
            download=Download(_KERAS, _IMDB),
        ),
        Spec(
            "reuters",
            "news, words",
            46,
            8_982,
            2_246,
            forms=(_REUTERS,),
            download=Download(_KERAS, _REUTERS),
        ),
    )
}
