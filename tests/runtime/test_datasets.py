"""Data sets: looked up in the documented order, checked wherever they come from, fetched by one for all.

A small data set of two-pixel images stands in for the real ones, since the code asks only its Spec; real
Fashion-MNIST is read too. apt-get, at the process boundary, is a script that hands out a package built here.
"""

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import hpcdl
from hpcdl.common import data_sets
from hpcdl.common.data_sets import ARRAY_NAMES, Download, Form, Spec, spec_of
from hpcdl.common.errors import BadInput
from hpcdl.runtime import data_files, data_reading, datasets
from hpcdl.runtime.data_files import Place, places
from hpcdl.runtime.data_reading import DataSet
from hpcdl.runtime.datasets import obtain
from hpcdl.runtime.debian import fetch_debian
from hpcdl.runtime.fetching import NotFetched
from hpcdl.runtime.idx import idx_header, idx_sha256
from hpcdl.runtime.ragged import Ragged

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
ARRAYS = {
    "x_train": np.arange(12, dtype=np.uint8).reshape(6, 1, 2),
    "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "x_test": np.arange(100, 106, dtype=np.uint8).reshape(3, 1, 2),
    "y_test": np.array([2, 1, 0], np.uint8),
}
NPZ = Form("npz", ("small_set.npz",))
#: For child processes: where hpcdl and tests are.
ROOT = str(Path(__file__).parents[2])
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb, to build a package")


def small_spec(**changes):
    row = {
        "name": "small_set",
        "description": "a test",
        "num_classes": 3,
        "num_train": 6,
        "num_test": 3,
        "sha256": {name: idx_sha256(array) for name, array in ARRAYS.items()},
        "forms": (*spec_of("fashion_mnist").forms, NPZ),
    }
    return Spec(**{**row, **changes})


def write_idx(folder, arrays=ARRAYS, gzipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in zip(FILES, ARRAY_NAMES):
        content = idx_header(arrays[name]) + arrays[name].tobytes()
        (folder / (file + ".gz" if gzipped else file)).write_bytes(
            gzip.compress(content) if gzipped else content
        )
    return folder


def find(spec, listed):
    """Returns the data set from the first place that has it; None if none has."""
    files = data_files.find(spec, listed)
    return files and data_reading.read(spec, files, files.place.folder)


def bad_input(call, *args, **kwargs):
    """Returns the message of the BadInput that the call must raise; each is one line."""
    with pytest.raises(BadInput) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- The order of looking


def test_the_places_stand_in_the_documented_order():
    listed = places(spec_of("fashion_mnist"), "/data", {"HPCDL_DATA": "/site", "HOME": "/home/me"})
    assert [str(place) for place in listed] == [
        "--data-dir /data",
        "$HPCDL_DATA /site",
        "hpcdl's cache /home/me/.cache/hpcdl/data",
        "Keras' cache /home/me/.keras/datasets",
        "Debian's package /usr/share/datasets/fashion-mnist",
    ]


def test_the_environment_moves_the_caches():
    listed = places(
        spec_of("mnist"), None, {"HPCDL_CACHE": "/scratch/c", "KERAS_HOME": "/scratch/k", "HOME": "/h"}
    )
    assert [str(place) for place in listed] == [
        "hpcdl's cache /scratch/c/data",
        "Keras' cache /scratch/k/datasets",
    ]


def test_the_first_place_that_has_the_data_wins(tmp_path):
    order = ["empty", "first", "second"]
    listed = [Place(label, tmp_path / label) for label in order]
    (tmp_path / "empty").mkdir()
    for label in order[1:]:
        write_idx(tmp_path / label)
    assert find(small_spec(), listed).source == f"first: {tmp_path / 'first'}"
    shutil.rmtree(tmp_path / "first")
    assert find(small_spec(), listed).source == f"second: {tmp_path / 'second'}"
    shutil.rmtree(tmp_path / "second")
    assert find(small_spec(), listed) is None


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("subfolder", [".", "small_set", "small-set"])
def test_the_files_may_lie_in_the_folder_or_in_one_of_the_sets_name_raw_or_gzipped(
    tmp_path, subfolder, gzipped
):
    write_idx(tmp_path / subfolder, gzipped=gzipped)
    found = find(small_spec(), [Place("--data-dir", tmp_path, named_by_user=True)])
    assert (found.name, found.num_classes) == ("small_set", 3)
    for name in ARRAY_NAMES:
        np.testing.assert_array_equal(getattr(found, name), ARRAYS[name])
        assert found.sha256[name] == idx_sha256(ARRAYS[name])


def test_the_folder_of_its_own_name_comes_before_foreign_files_of_the_same_names_beside_it(tmp_path):
    write_idx(tmp_path, arrays={**ARRAYS, "y_train": ARRAYS["y_train"][::-1].copy()})
    write_idx(tmp_path / "small_set")
    assert find(small_spec(), [Place("here", tmp_path)]) is not None


def test_a_folder_that_the_user_named_and_that_has_other_data_is_passed_over(tmp_path):
    (tmp_path / "mine").mkdir()
    write_idx(tmp_path / "home/.keras/datasets/small-set")
    found = obtain(small_spec(), tmp_path / "mine", {"HOME": str(tmp_path / "home")})
    assert found.source.startswith("Keras' cache")


@pytest.mark.parametrize("how", ["data_dir", "HPCDL_DATA"])
def test_a_folder_that_the_user_named_and_that_is_not_there_is_an_error(tmp_path, how):
    gone = str(tmp_path / "gone")
    environ = {"HOME": str(tmp_path), **({"HPCDL_DATA": gone} if how == "HPCDL_DATA" else {})}
    message = bad_input(obtain, small_spec(), gone if how == "data_dir" else None, environ)
    assert gone in message
    assert ("--data-dir" if how == "data_dir" else "$HPCDL_DATA") in message


def test_some_of_the_files_are_an_error_in_the_users_folder_and_nothing_in_a_cache(tmp_path):
    write_idx(tmp_path)
    (tmp_path / FILES[3]).unlink()
    assert find(small_spec(), [Place("cache", tmp_path)]) is None
    message = bad_input(find, small_spec(), [Place("--data-dir", tmp_path, named_by_user=True)])
    assert "expected 4 files" in message
    assert "found 3" in message
    assert f"add {FILES[3]} (or .gz)" in message


def test_some_files_of_one_form_hide_no_other_form_beside_them(tmp_path):
    np.savez(tmp_path / "small_set.npz", **ARRAYS)
    write_idx(tmp_path / "small_set")
    for file in FILES[2:]:
        (tmp_path / "small_set" / file).unlink()
    found = find(small_spec(), [Place("--data-dir", tmp_path, named_by_user=True)])
    assert found.source == f"--data-dir: {tmp_path}"


@pytest.fixture
def locked(monkeypatch, tmp_path):
    """A folder that may not be entered; root may enter any, so what the system says of it is made up."""
    folder, stat = tmp_path / "theirs", os.stat

    def refuse(path, *args, **kwargs):
        if isinstance(path, (str, Path)) and str(path).startswith(f"{folder}{os.sep}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *args, **kwargs)

    folder.mkdir()
    monkeypatch.setattr(os, "stat", refuse)
    return folder


@pytest.mark.parametrize("within", [".", "data"])
def test_a_folder_that_may_not_be_entered_is_an_error_if_the_user_named_it(locked, within):
    message = bad_input(obtain, small_spec(), locked / within, {"HOME": str(locked.parent)})
    assert f"--data-dir {locked / within}" in message
    assert "Permission denied" in message
    assert "leave it out" in message


def test_a_cache_that_may_not_be_entered_is_passed_over(locked):
    write_idx(locked.parent / "here")
    found = find(small_spec(), [Place("Keras' cache", locked), Place("here", locked.parent / "here")])
    assert found.source == f"here: {locked.parent / 'here'}"


def test_an_unknown_name_is_answered_with_near_ones():
    assert "did you mean fashion_mnist" in bad_input(datasets.load, "fashion-mnist")
    message = bad_input(datasets.load, "imagenet")
    assert all(name in message for name in data_sets.names())


# --- The contents


def test_a_wrong_array_is_refused_with_both_checksums_and_the_way_out(tmp_path):
    wrong = {**ARRAYS, "x_test": ARRAYS["x_test"] + np.uint8(1)}
    write_idx(tmp_path, arrays=wrong)
    for named_by_user, cure in ((True, "replace it"), (False, "delete it, and it is fetched again")):
        message = bad_input(find, small_spec(), [Place("there", tmp_path, named_by_user)])
        assert str(tmp_path / FILES[2]) in message
        assert f"SHA-256 {idx_sha256(ARRAYS['x_test'])}" in message
        assert f"found {idx_sha256(wrong['x_test'])}" in message
        assert cure in message


def test_a_truncated_gzip_file_is_refused_and_named(tmp_path):
    write_idx(tmp_path, gzipped=True)
    path = tmp_path / (FILES[1] + ".gz")
    path.write_bytes(path.read_bytes()[:-3])
    message = bad_input(find, small_spec(), [Place("there", tmp_path)])
    assert str(path) in message
    assert "cut short" in message


def test_a_damaged_file_in_an_early_place_is_not_covered_up_by_a_good_one_in_a_later_place(tmp_path):
    write_idx(tmp_path / "a")
    (tmp_path / "a" / FILES[0]).write_bytes(b"")
    write_idx(tmp_path / "b")
    assert str(tmp_path / "a") in bad_input(
        find, small_spec(), [Place("a", tmp_path / "a"), Place("b", tmp_path / "b")]
    )


def test_plain_arrays_in_npz_pass_by_the_same_checksums(tmp_path):
    np.savez(tmp_path / "small_set.npz", **ARRAYS)
    found = find(small_spec(), [Place("Keras' cache", tmp_path)])
    np.testing.assert_array_equal(found.x_train, ARRAYS["x_train"])


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_in_npz_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "small_set.npz", **{**ARRAYS, "x_test": np.array([_Trap(sprung)], object)})
    message = bad_input(find, small_spec(), [Place("Keras' cache", tmp_path)])
    assert "small_set.npz: expected plain arrays" in message
    assert not sprung.exists()


@pytest.mark.parametrize("fault", ["cut", "empty", "lacks an array", "wrong type", "a page"])
def test_a_damaged_npz_is_refused(tmp_path, fault):
    path = tmp_path / "small_set.npz"
    arrays = dict(ARRAYS)
    if fault == "lacks an array":
        del arrays["y_test"]
    if fault == "wrong type":
        arrays["y_test"] = arrays["y_test"].astype(np.uint64)
    np.savez(path, **arrays)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "a page":
        path.write_bytes(b"<html></html>")
    message = bad_input(find, small_spec(), [Place("Keras' cache", tmp_path)])
    assert f"{path}: expected" in message
    assert "found" in message


# --- Fetching


PACKAGE_FOLDER = Path("/usr/share/hpcdl-test/small-set")

APT_GET = """\
#!/bin/sh
echo "$$ $*" >> "{log}"
{body}
"""

#: One rank: fetches the small set with apt-get from PATH, and prints where it came from or why not.
RANK = """
import json
from tests.runtime.test_datasets import PACKAGE_FOLDER, small_spec
from hpcdl.common.data_sets import Download
from hpcdl.runtime.datasets import obtain

of_nobody = Download("http://localhost:1/", small_spec().forms[1])
spec = small_spec(debian_package="small-set", debian_folder=PACKAGE_FOLDER, download=of_nobody)
try:
    print(json.dumps(obtain(spec, None, {{"HOME": {home!r}}}).source))
except Exception as error:
    print(json.dumps(f"{{type(error).__name__}}: {{error}}"))
"""


@pytest.fixture
def package(tmp_path):
    """A Debian package with the small set."""
    root = tmp_path / "package"
    write_idx(root / PACKAGE_FOLDER.relative_to("/"), gzipped=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: small-set\nVersion: 1\nArchitecture: all\n"
        "Maintainer: none <none@localhost>\nDescription: a test\n"
    )
    target = tmp_path / "small-set_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", root, target], check=True, stdout=subprocess.DEVNULL
    )
    return target


class Machine:
    """A home folder and an apt-get whose every call is logged."""

    def __init__(self, folder, body):
        self.home = folder / "home"
        self.cache = self.home / ".cache/hpcdl/data"
        self._log = folder / "apt.log"
        self._bin = folder / "bin"
        for made in (self.home, self._bin):
            made.mkdir()
        program = self._bin / "apt-get"
        program.write_text(APT_GET.format(log=self._log, body=textwrap.dedent(body)))
        program.chmod(0o755)

    def calls(self):
        return self._log.read_text().splitlines() if self._log.exists() else []

    def start_rank(self):
        environ = {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "PYTHONPATH": ROOT,
            "no_proxy": "*",
        }
        code = RANK.format(home=str(self.home))
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=pipe, stderr=pipe)

    def run_ranks(self, count):
        ranks = [self.start_rank() for _ in range(count)]
        outputs = [rank.communicate(timeout=60) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * count, outputs
        return [json.loads(out) for out, _ in outputs]


@needs_dpkg
def test_of_three_ranks_one_unpacks_the_package_and_the_others_wait(tmp_path, package):
    machine = Machine(tmp_path, f"sleep 1; cp {package} .")
    sources = machine.run_ranks(3)
    assert len(machine.calls()) == 1
    assert sources == [f"hpcdl's cache: {machine.cache / 'small_set'}"] * 3
    assert sorted(path.name for path in (machine.cache / "small_set").iterdir()) == sorted(
        f + ".gz" for f in FILES
    )
    assert sorted(path.name for path in machine.cache.iterdir()) == [".small_set.lock", "small_set"]


@needs_dpkg
def test_without_package_lists_on_the_machine_lists_of_its_own_are_fetched(tmp_path, package):
    body = f"""
    case "$*" in
        *Dir::State::lists=*update) exit 0;;
        *Dir::State::lists=*download*) cp {package} .;;
        *) echo "E: Unable to locate package small-set" >&2; exit 100;;
    esac
    """
    machine = Machine(tmp_path, body)
    assert machine.run_ranks(1)[0].startswith("hpcdl's cache")
    assert [call.split()[-1] for call in machine.calls()] == ["small-set", "update", "small-set"]


@needs_dpkg
def test_a_package_with_other_contents_is_not_kept(tmp_path, package):
    root = tmp_path / "package"
    write_idx(root / PACKAGE_FOLDER.relative_to("/"), {**ARRAYS, "y_test": ARRAYS["y_train"]}, gzipped=True)
    subprocess.run(["dpkg-deb", "-b", root, package], check=True, stdout=subprocess.DEVNULL)
    machine = Machine(tmp_path, f"cp {package} .")
    said = machine.run_ranks(1)[0]
    assert "Debian's package small-set: t10k-labels-idx1-ubyte.gz: expected y_test" in said
    assert [path.name for path in machine.cache.iterdir()] == [".small_set.lock"]


def test_no_data_and_no_network_says_where_it_looked_what_failed_and_the_way_out(tmp_path):
    machine = Machine(tmp_path, 'echo "W: as root" >&2; echo "E: Could not resolve host" >&2; exit 100')
    said = machine.run_ranks(1)[0]
    assert said.startswith("BadInput: no data for small_set: looked in hpcdl's cache ")
    assert "Keras' cache" in said
    assert (
        "Debian's package small-set: E: Could not resolve host; Keras' download: http://localhost:1/" in said
    )
    assert "Connection refused; where there is a network, run `hpcdl data fetch small_set --to DIR`" in said
    assert "--data-dir DIR or HPCDL_DATA" in said
    assert "\n" not in said
    assert [path.name for path in machine.cache.iterdir()] == [".small_set.lock"]


def test_the_ranks_that_waited_do_not_try_the_dead_network_again(tmp_path):
    machine = Machine(tmp_path, "sleep 0.5; exit 100")
    said = machine.run_ranks(3)
    assert (
        len({line.split()[0] for line in machine.calls()}) == len(machine.calls()) == 3
    )  # One rank's three calls.
    assert len(set(said)) == 1
    machine.run_ranks(1)  # A later run does try: the network may be back.
    assert len(machine.calls()) == 6


@needs_dpkg
def test_a_rank_killed_while_it_fetches_leaves_the_way_free(tmp_path, package):
    hang = tmp_path / "hang"
    hang.touch()
    machine = Machine(tmp_path, f"[ -e {hang} ] && exec sleep 5; cp {package} .")
    first = machine.start_rank()
    while not machine.calls():
        assert first.poll() is None
    first.kill()
    first.communicate()
    hang.unlink()
    assert machine.run_ranks(1)[0].startswith("hpcdl's cache")


def test_a_machine_without_apt_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFetched, match="apt-get and dpkg-deb not found"):
        fetch_debian("small-set", PACKAGE_FOLDER, FILES, tmp_path / "target", check=list)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    message = bad_input(
        obtain, small_spec(), None, {"HPCDL_CACHE": str(tmp_path / "file"), "HOME": str(tmp_path)}
    )
    assert (
        f"hpcdl's cache must be a folder that can be written; received {tmp_path / 'file' / 'data'} ("
        in message
    )
    assert "set HPCDL_CACHE" in message


@pytest.fixture
def served(monkeypatch):
    """Serves files by name on this machine; a value may be (content, length that is promised)."""
    monkeypatch.setenv("no_proxy", "*")
    files = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = files.get(self.path[1:])
            content, length = answer if isinstance(answer, tuple) else (answer, answer and len(answer))
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    server = HTTPServer(("localhost", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield files, f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


def npz_bytes(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **{**ARRAYS, **arrays})
    return stream.getvalue()


def test_what_no_place_has_is_downloaded_into_the_cache_and_its_progress_told_on_standard_error(
    served, tmp_path, capsys
):
    files, url = served
    files["small_set.npz"] = npz_bytes()
    spec = small_spec(download=Download(url, NPZ))
    found = obtain(spec, None, {"HOME": str(tmp_path)})
    np.testing.assert_array_equal(found.y_test, ARRAYS["y_test"])
    assert found.source == f"hpcdl's cache: {tmp_path / '.cache/hpcdl/data/small_set'}"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(f"hpcdl: {url}small_set.npz  0.0 of 0.0 MB, 100 %")
    files.clear()  # and is there the next time
    assert obtain(spec, None, {"HOME": str(tmp_path)}).source == found.source


def test_a_set_of_several_files_is_downloaded_gzipped(served, tmp_path):
    files, url = served
    for path in write_idx(tmp_path / "served", gzipped=True).iterdir():
        files[path.name] = path.read_bytes()
    found = obtain(small_spec(download=Download(url, small_spec().forms[0])), None, {"HOME": str(tmp_path)})
    np.testing.assert_array_equal(found.x_train, ARRAYS["x_train"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (npz_bytes(x_test=ARRAYS["x_train"]), "Keras' download: small_set.npz: expected x_test of small_set"),
        (None, "small_set.npz: Not Found"),
        ((npz_bytes()[:100], 5000), "small_set.npz: ended after 100 of 5000 bytes"),
        (b"<html>log in first</html>", "Keras' download: small_set.npz: expected plain arrays"),
    ],
    ids=["other arrays", "not there", "cut short", "a page"],
)
def test_a_download_that_fails_or_brings_something_else_is_told_and_not_kept(served, tmp_path, answer, said):
    files, url = served
    files["small_set.npz"] = answer
    spec = small_spec(download=Download(url, NPZ))
    assert said in bad_input(obtain, spec, None, {"HOME": str(tmp_path)})
    assert [path.name for path in (tmp_path / ".cache/hpcdl/data").iterdir()] == [".small_set.lock"]


# --- The real sets


@pytest.fixture(scope="module")
def fashion_mnist():
    return datasets.load("fashion_mnist")


def check_real(data, mean, std, train_counts):
    assert (data.x_train.shape, data.x_train.dtype) == ((60000, 28, 28), np.uint8)
    assert (data.x_test.shape, data.x_test.dtype) == ((10000, 28, 28), np.uint8)
    assert data.x_train.mean() / 255 == pytest.approx(mean, abs=5e-5)
    assert data.x_train.std() / 255 == pytest.approx(std, abs=5e-5)
    np.testing.assert_array_equal(np.bincount(data.y_train), train_counts)
    assert data.y_test.shape == (10000,)


def test_fashion_mnist_is_the_known_one(fashion_mnist):
    check_real(fashion_mnist, 0.2860, 0.3530, [6000] * 10)


def test_a_script_gets_what_tf_keras_datasets_gives(fashion_mnist):
    (x_train, y_train), (x_test, y_test) = hpcdl.load_data("fashion_mnist")
    for name, array in (("x_train", x_train), ("y_train", y_train), ("x_test", x_test), ("y_test", y_test)):
        np.testing.assert_array_equal(array, getattr(fashion_mnist, name))


def test_a_script_gets_texts_as_lists_of_words(monkeypatch):
    texts = Ragged.of_lists([[1, 7], [], [1, 2]])
    data = DataSet("texts", 2, texts, np.zeros(3), texts, np.ones(3), "a test", {})
    monkeypatch.setattr(datasets, "load", lambda name, data_dir: data)
    (x_train, y_train), (x_test, _) = hpcdl.load_data("texts")
    assert list(x_train) == list(x_test) == [[1, 7], [], [1, 2]]
    assert (x_train.dtype, len(y_train)) == (object, 3)


def test_mnist_is_the_known_one_where_it_is_on_this_machine():
    spec = spec_of("mnist")
    data = find(spec, places(spec, None, os.environ))
    if data is None:
        pytest.skip("no MNIST here; set HPCDL_DATA to a folder with mnist/*-ubyte in it")
    check_real(data, 0.1307, 0.3081, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])


def test_fashion_mnist_in_the_place_of_mnist_is_named(fashion_mnist, tmp_path):
    write_idx(tmp_path, {name: getattr(fashion_mnist, name) for name in ARRAY_NAMES})
    message = bad_input(datasets.load, "mnist", data_dir=tmp_path)
    assert "expected x_train of mnist" in message
    assert "found x_train of fashion_mnist" in message


def test_the_arrays_cannot_be_changed_by_one_user_for_the_next(fashion_mnist):
    with pytest.raises(ValueError, match="read-only"):
        fashion_mnist.x_train[0, 0, 0] = 1


def test_neither_datasets_nor_workloads_load_tensorflow():
    code = "import sys; from hpcdl.runtime import datasets, workloads; print('tensorflow' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.strip() == "False"
