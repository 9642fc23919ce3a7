"""The forms in which Keras' data sets lie: read as Keras itself reads them, pickles only of known archives.

CIFAR-100, IMDB and Reuters are in no package that a test could fetch: small files of the same form stand in for them,
and Keras' own `load_data` says what is in them.
"""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tensorflow import keras

from hpcdl.common import data_sets
from hpcdl.common.data_sets import ARRAY_NAMES, Form, Spec
from hpcdl.common.errors import BadInput
from hpcdl.runtime import data_reading, unpacking
from hpcdl.runtime.data_files import Place, find
from hpcdl.runtime.pickles import read_pickle
from hpcdl.runtime.ragged import Ragged


def objects(rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def texts(count, seed):
    random = np.random.default_rng(seed)
    return [random.integers(1, 50, random.integers(1, 9)).tolist() for _ in range(count)]


def write_imdb(path):
    train, test = texts(9, 0), texts(6, 1)
    np.savez(path, x_train=objects(train), y_train=np.arange(9), x_test=objects(test), y_test=np.arange(6))


def write_reuters(path):
    np.savez(path, x=objects(texts(11, 2)), y=np.arange(11))


def write_boston(path):
    random = np.random.default_rng(3)
    np.savez(path, x=random.normal(size=(11, 13)), y=random.normal(size=11))


def batch(count, seed, label_key):
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (count, 3072)).astype(np.uint8)
    return {b"data": data, label_key: random.integers(0, 10, count).tolist(), b"filenames": [b"a"] * count}


def write_archive(path, batches):
    """Packs batches as CIFAR's archives do; in a file list of another order."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in reversed(list(batches.items())):
            pickled = pickle.dumps(content, protocol=4) if not isinstance(content, bytes) else content
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))


CIFAR10 = {
    **{f"data_batch_{i}": batch(4, i, b"labels") for i in range(1, 6)},
    "test_batch": batch(3, 9, b"labels"),
    "batches.meta": {b"label_names": [b"airplane"]},
}
CIFAR100 = {
    name: {**batch(count, count, b"fine_labels"), b"coarse_labels": [1] * count}
    for name, count in (("train", 7), ("test", 3))
}


def spec_of_file(path, kind, holds_pickles=True):
    form = Form(
        kind, (path.name,), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), holds_pickles=holds_pickles
    )
    return Spec("small", "a test", 10, 1, 1, forms=(form,))


def load(path, kind, holds_pickles=True):
    spec = spec_of_file(path, kind, holds_pickles)
    files = find(spec, [Place("here", path.parent)])
    return data_reading.read(spec, files, path.parent / "cache")


def of_keras(name, path, monkeypatch):
    """Lets Keras' own load_data read a file."""
    load_data = getattr(keras.datasets, name).load_data
    monkeypatch.setattr(sys.modules[load_data.__module__], "get_file", lambda *_, **__: str(path))
    return load_data()


def rows(values):
    return [list(row) for row in (values.rows() if isinstance(values, Ragged) else values)]


@pytest.mark.parametrize(
    ("name", "write"), [("imdb", write_imdb), ("reuters", write_reuters), ("boston_housing", write_boston)]
)
def test_an_npz_file_gives_what_keras_reads_in_it(name, write, tmp_path, monkeypatch):
    path = tmp_path / f"{name}.npz"
    write(path)
    kind = "boston_npz" if name == "boston_housing" else f"{name}_npz"
    data = load(path, kind, holds_pickles=name != "boston_housing")
    (x_train, y_train), (x_test, y_test) = of_keras(name, path, monkeypatch)
    for ours, theirs in ((data.x_train, x_train), (data.x_test, x_test)):
        assert rows(ours) == rows(theirs)
    np.testing.assert_array_equal(data.y_train, y_train)
    np.testing.assert_array_equal(data.y_test, y_test)
    again = load(path, kind, holds_pickles=name != "boston_housing")  # from what was unpacked
    assert rows(again.x_test) == rows(x_test)


def test_an_archive_of_cifar10_gives_images_and_labels_in_the_order_of_its_batches(tmp_path):
    write_archive(tmp_path / "cifar.tar.gz", CIFAR10)
    data = load(tmp_path / "cifar.tar.gz", "cifar")
    assert (data.x_train.shape, data.x_train.dtype, data.y_train.shape) == (
        (20, 32, 32, 3),
        np.uint8,
        (20, 1),
    )
    assert data.x_test.shape == (3, 32, 32, 3)
    first = CIFAR10["data_batch_1"][b"data"][0]  # all red values first, then green, then blue
    np.testing.assert_array_equal(data.x_train[0, 0, 1], first[[1, 1025, 2049]])
    np.testing.assert_array_equal(data.x_train[4, 2, 3, 0], CIFAR10["data_batch_2"][b"data"][0][67])
    np.testing.assert_array_equal(data.y_test[:, 0], CIFAR10["test_batch"][b"labels"])


def test_an_archive_of_cifar100_gives_its_fine_labels(tmp_path):
    write_archive(tmp_path / "cifar.tar.gz", CIFAR100)
    data = load(tmp_path / "cifar.tar.gz", "cifar")
    np.testing.assert_array_equal(data.y_train[:, 0], CIFAR100["train"][b"fine_labels"])
    assert data.x_test.shape == (3, 32, 32, 3)


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["cifar", "imdb_npz", "reuters_npz"])
def test_a_pickle_that_calls_anything_is_refused_and_not_run_even_with_the_right_checksum(tmp_path, kind):
    path, sprung = tmp_path / "file", tmp_path / "sprung"
    if kind == "cifar":
        write_archive(path, {**CIFAR100, "test": pickle.dumps({b"data": _Trap(sprung)})})
    else:
        trap = objects([[1], _Trap(sprung)])
        with open(path, "wb") as stream:
            np.savez(stream, x_train=trap, y_train=trap, x_test=trap, y_test=trap, x=trap, y=trap)
    with pytest.raises(BadInput, match="a pickle that calls .*which no data set needs") as refusal:
        load(path, kind)
    assert "\n" not in str(refusal.value)
    assert not sprung.exists()


@pytest.mark.parametrize("builtin", [eval, getattr, print, np.load])
def test_no_builtin_and_no_other_function_of_numpy_passes(builtin):
    with pytest.raises(pickle.UnpicklingError, match="which no data set needs"):
        read_pickle(io.BytesIO(pickle.dumps(builtin)))


@pytest.mark.parametrize("fault", ["cut", "changed"])
def test_an_archive_with_another_checksum_is_not_opened(tmp_path, fault, monkeypatch):
    path = tmp_path / "cifar.tar.gz"
    write_archive(path, CIFAR100)
    spec = spec_of_file(path, "cifar")
    content = path.read_bytes()
    path.write_bytes(content[:-20] if fault == "cut" else content[:100] + b"x" + content[101:])
    monkeypatch.setattr(data_reading, "READERS", {})
    with pytest.raises(
        BadInput, match=f"expected a file with SHA-256 {spec.forms[0].sha256}, found [0-9a-f]{{64}}; "
    ):
        data_reading.read(spec, find(spec, [Place("here", tmp_path)]), tmp_path)


@pytest.mark.parametrize("kind", ["cifar", "imdb_npz", "reuters_npz", "boston_npz"])
@pytest.mark.parametrize("content", [b"", b"<html></html>", None], ids=["empty", "a page", "other arrays"])
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, kind, content):
    path = tmp_path / "file"
    if content is None:
        np.savez(tmp_path / "other.npz", other=np.arange(3))
        content = (tmp_path / "other.npz").read_bytes()
    path.write_bytes(content)
    with pytest.raises(BadInput, match="expected .*found .*pass --data-dir DIR") as refusal:
        load(path, kind, holds_pickles=kind != "boston_npz")
    assert "\n" not in str(refusal.value)


def test_an_archive_is_unpacked_once_for_all_and_again_where_that_is_damaged(tmp_path):
    calls = []

    def read():
        calls.append(1)
        return {"x_train": Ragged.of_lists([[1, 2], [3]]), "y_train": np.array([4, 5])}

    folder = tmp_path / "cache" / "imdb"
    for _ in range(3):
        arrays = unpacking.unpacked_once(folder, "ab" * 32, read)
        assert rows(arrays["x_train"]) == [[1, 2], [3]]
        assert list(arrays["y_train"]) == [4, 5]
    assert len(calls) == 1
    (unpacked,) = folder.glob("unpacked-*.npz")
    whole = unpacked.read_bytes()
    for damaged in (whole[:-30], whole[:200] + b"?" + whole[201:], b""):
        unpacked.write_bytes(damaged)
        assert rows(unpacking.unpacked_once(folder, "ab" * 32, read)["x_train"]) == [[1, 2], [3]]
    assert unpacked.read_bytes() == whole
    assert len(calls) == 4
    (tmp_path / "file").touch()  # where nothing can be left, each reads for itself
    assert rows(unpacking.unpacked_once(tmp_path / "file", "ab" * 32, read)["x_train"]) == [[1, 2], [3]]
    assert len(calls) == 5


#: A rank: waits until all three are there, and unpacks an archive; notes that it has read it, and prints the arrays.
RANK = """
import sys, time
from pathlib import Path
import numpy as np
from hpcdl.runtime.unpacking import unpacked_once

folder, rank = Path(sys.argv[1]), sys.argv[2]

def read():
    (folder / f"read-by-{rank}").touch()
    time.sleep(1)
    return {"x_train": np.arange(5), "y_train": np.array([4, 5])}

(folder / f"here-{rank}").touch()
while len(list(folder.glob("here-*"))) < 3:
    time.sleep(0.01)
arrays = unpacked_once(folder / "cache", "ab" * 32, read)
print(arrays["x_train"].tolist(), arrays["y_train"].tolist())
"""


def test_of_ranks_that_come_at_once_one_unpacks_and_the_others_wait(tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)],
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    assert said == ["[0, 1, 2, 3, 4] [4, 5]"] * 3
    assert len(list(tmp_path.glob("read-by-*"))) == 1


def test_an_archive_that_cannot_be_saved_unpacked_is_read_once(tmp_path, monkeypatch):
    def full(*_, **arrays):
        raise OSError("no space left")

    monkeypatch.setattr(unpacking.np, "savez", full)
    calls = []
    arrays = unpacking.unpacked_once(tmp_path, "ab" * 32, lambda: calls.append(1) or {"x": np.arange(3)})
    assert list(arrays["x"]) == [0, 1, 2]
    assert len(calls) == 1


def test_ragged_rows_are_padded_before_cut_at_the_front_and_rare_words_replaced():
    padded = Ragged.of_lists([[1, 7, 8], [], [1, 2, 3, 4, 5, 6]]).padded(4, vocabulary=8, out_of_vocabulary=2)
    assert padded.tolist() == [[0, 1, 7, 2], [0, 0, 0, 0], [3, 4, 5, 6]]
    assert padded.dtype == np.int32


@pytest.mark.parametrize("name", data_sets.names())
def test_checksums_and_addresses_are_those_in_the_source_of_the_installed_keras(name):
    spec = data_sets.spec_of(name)
    module = sys.modules[getattr(keras.datasets, name).load_data.__module__]
    source = Path(module.__file__).read_text()
    assert {form.sha256 for form in spec.forms if form.sha256} <= {
        word.strip('"') for word in source.split() if len(word.strip('"')) == 64
    }
    for file, url in spec.download.urls().items():
        assert url.startswith("https://")
        assert spec.download.base_url in source
        assert file in source
    assert set(spec.sha256) in (set(), set(ARRAY_NAMES))
