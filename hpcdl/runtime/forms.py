"""Readers of the forms in which data sets lie: idx, plain npz, CIFAR's archive, texts in npz.

They give what ``tf.keras.datasets`` gives, but for texts, which are two plain arrays for each list of lists.

Synopsis::

    arrays = READERS["cifar"]([Path("cifar-10-python.tar.gz")])     # {"x_train": ..., "y_train": ..., ...}
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple, Union

import numpy as np

from hpcdl.common.data_sets import ARRAY_NAMES
from hpcdl.runtime.idx import DamagedFile, read_idx
from hpcdl.runtime.pickles import read_npy, read_pickle
from hpcdl.runtime.ragged import Ragged

Arrays = Dict[str, Union[np.ndarray, Ragged]]
Reader = Callable[[Sequence[Path]], Arrays]

#: What `tf.keras.datasets` does where nothing else is asked for.
_KERAS_SEED = 113
_KERAS_TEST_SHARE = 0.2
_START, _RARE, _FIRST_WORD = 1, 2, 3

#: What a damaged archive or pickle raises, depending on where the damage lies.
_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read_idx_files(paths: Sequence[Path]) -> Arrays:
    return {name: read_idx(path) for name, path in zip(ARRAY_NAMES, paths)}


def _read_npz(paths: Sequence[Path]) -> Arrays:
    """Reads plain arrays only: a pickle in the file is an error, never run."""
    with open(paths[0], "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in ARRAY_NAMES}


def _read_boston(paths: Sequence[Path]) -> Arrays:
    with open(paths[0], "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        if set(ARRAY_NAMES) <= set(archive):
            return {name: archive[name] for name in ARRAY_NAMES}
        x, y = archive["x"], archive["y"]
    order = _shuffled(np.random.RandomState(_KERAS_SEED), len(x))
    return _split(x[order], y[order])


def _read_cifar(paths: Sequence[Path]) -> Arrays:
    """Reads CIFAR-10's six batches, or CIFAR-100's two, with fine labels, from the archive as it is."""
    parts: Dict[str, Tuple[np.ndarray, np.ndarray]] = {}
    with tarfile.open(paths[0]) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and (name in ("train", "test", "test_batch") or name.startswith("data_batch")):
                stream = archive.extractfile(member)
                if stream is not None:
                    parts[name] = _cifar_batch(read_pickle(io.BytesIO(stream.read()), encoding="bytes"))
    train = [parts[name] for name in sorted(parts) if name == "train" or name.startswith("data_batch")]
    x_test, y_test = parts["test" if "test" in parts else "test_batch"]
    return {
        "x_train": np.concatenate([x for x, _ in train]),
        "y_train": np.concatenate([y for _, y in train]),
        "x_test": x_test,
        "y_test": y_test,
    }


def _cifar_batch(batch: Mapping[bytes, Any]) -> Tuple[np.ndarray, np.ndarray]:
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = batch[b"labels"] if b"labels" in batch else batch[b"fine_labels"]
    return np.ascontiguousarray(images), np.array(labels, np.uint8).reshape(-1, 1)


def _read_imdb(paths: Sequence[Path]) -> Arrays:
    stored = _read_object_npz(paths[0])
    random = np.random.RandomState(_KERAS_SEED)
    orders = {part: _shuffled(random, len(stored[f"x_{part}"])) for part in ("train", "test")}
    rows = {part: stored[f"x_{part}"][order] for part, order in orders.items()}
    texts = _texts([*rows["train"], *rows["test"]])
    num_train = len(rows["train"])
    return {
        "x_train": _part(texts, 0, num_train),
        "y_train": stored["y_train"][orders["train"]],
        "x_test": _part(texts, num_train, len(texts)),
        "y_test": stored["y_test"][orders["test"]],
    }


def _read_reuters(paths: Sequence[Path]) -> Arrays:
    stored = _read_object_npz(paths[0])
    order = _shuffled(np.random.RandomState(_KERAS_SEED), len(stored["x"]))
    texts, labels = _texts(list(stored["x"][order])), stored["y"][order]
    num_train = int(len(texts) * (1 - _KERAS_TEST_SHARE))
    return {
        "x_train": _part(texts, 0, num_train),
        "y_train": labels[:num_train],
        "x_test": _part(texts, num_train, len(texts)),
        "y_test": labels[num_train:],
    }


def _read_object_npz(path: Path) -> Dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        return {
            name[: -len(".npy")]: read_npy(io.BytesIO(archive.read(name)))
            for name in archive.namelist()
            if name.endswith(".npy")
        }


def _texts(rows: List[Sequence[int]]) -> Ragged:
    """Numbers the words as Keras does: a start sign, words from 3 on, the rarest word of all counted as rare."""
    words = Ragged.of_lists(rows)
    lengths = np.diff(words.ends, prepend=0)
    numbered = words.values + _FIRST_WORD
    numbered[numbered >= numbered.max(initial=0)] = _RARE
    begins = words.ends - lengths
    return Ragged(
        np.insert(numbered, begins, _START).astype(np.int32), words.ends + np.arange(1, len(rows) + 1)
    )


def _part(texts: Ragged, first: int, last: int) -> Ragged:
    begin = int(texts.ends[first - 1]) if first else 0
    ends = texts.ends[first:last]
    return Ragged(texts.values[begin : int(ends[-1]) if len(ends) else begin], ends - begin)


def _shuffled(random: np.random.RandomState, count: int) -> np.ndarray:
    order = np.arange(count)
    random.shuffle(order)
    return order


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
    num_train = int(len(x) * (1 - _KERAS_TEST_SHARE))
    return {
        "x_train": x[:num_train],
        "y_train": y[:num_train],
        "x_test": x[num_train:],
        "y_test": y[num_train:],
    }


def _refusing_damage(what: str, read: Reader) -> Reader:
    def checked(paths: Sequence[Path]) -> Arrays:
        try:
            return read(paths)
        except _DAMAGE as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise DamagedFile(f"{paths[0]}: expected {what}, found {said}") from error

    return checked


READERS: Mapping[str, Reader] = {
    "idx": _read_idx_files,
    "npz": _refusing_damage(f"plain arrays {', '.join(ARRAY_NAMES)}", _read_npz),
    "boston_npz": _refusing_damage("plain arrays x and y", _read_boston),
    "cifar": _refusing_damage("an archive of CIFAR's batches", _read_cifar),
    "imdb_npz": _refusing_damage("texts in x_train, y_train, x_test and y_test", _read_imdb),
    "reuters_npz": _refusing_damage("texts in x and y", _read_reuters),
}
