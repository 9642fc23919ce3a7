"""Keras on another backend than TensorFlow is refused before it, or TensorFlow, is loaded: real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.runtime.backend import check_backend, check_release
from tests.bare import environ_of_script

HAS_BACKENDS = metadata.version("keras").startswith("3.")
#: Says at its end what it has loaded.
SCRIPT = """
import atexit, sys
atexit.register(lambda: print(*sorted({"keras", "tensorflow"} & set(sys.modules))))
import hpcdl
run = hpcdl.init()
"""


def started(words, folder, environ):
    """Runs ``python WORDS`` in a folder that is Keras' home too."""
    variables = {name: value for name, value in environ_of_script().items() if not name.startswith("KERAS_")}
    (folder / "m.py").write_text(SCRIPT)
    (folder / "keras_first.py").write_text("import keras\n" + SCRIPT)
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**variables, "KERAS_HOME": str(folder), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "backend"),
    [
        (["m.py"], "jax"),
        (["m.py"], "numpy"),
        (["m.py"], "nonsense"),
        (["-m", "hpcdl", "train", "m.py"], "jax"),
        (["-m", "hpcdl", "train", "keras_first.py"], "jax"),
        (["-m", "hpcdl", "train", "fashion_mnist/fc64"], "jax"),
    ],
)
def test_it_is_one_line_with_status_2_and_neither_is_loaded(words, backend, tmp_path):
    done = started(words, tmp_path, {"KERAS_BACKEND": backend})
    assert done.stderr == (
        "hpcdl: Keras must compute with TensorFlow, whose steps hpcdl joins;"
        f" received KERAS_BACKEND={backend}; unset it, or set KERAS_BACKEND=tensorflow\n"
    )
    assert (done.returncode, done.stdout.strip()) == (2, "")


@pytest.mark.skipif(not HAS_BACKENDS, reason="Keras 2 has no backends")
def test_what_keras_own_file_says_counts_too(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "numpy"}))
    done = started(["m.py"], tmp_path, {})
    assert done.stderr.startswith("hpcdl: Keras must compute with TensorFlow")
    assert (
        f'received "backend": "numpy" in {tmp_path}/keras.json; set KERAS_BACKEND=tensorflow' in done.stderr
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.count("\n")) == (2, "", 1)


@pytest.fixture
def keras_home(tmp_path):
    """A home of Keras whose file names another backend."""
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "numpy"}))
    return tmp_path


def test_the_variable_goes_before_the_file_and_an_empty_one_is_none(keras_home):
    home = {"KERAS_HOME": str(keras_home)}
    check_backend({**home, "KERAS_BACKEND": "tensorflow"}, "3.4.1")
    with pytest.raises(BadInput, match="keras.json"):
        check_backend({**home, "KERAS_BACKEND": ""}, "3.4.1")


@pytest.mark.parametrize(
    ("environ", "keras"),
    [
        pytest.param({}, "2.15.0", id="Keras 2, which leaves this to files of old"),
        pytest.param({}, None, id="no Keras that says its version"),
        pytest.param({"TF_USE_LEGACY_KERAS": "1"}, "3.4.1", id="tf_keras in its place"),
    ],
)
def test_the_file_does_not_count_for_a_keras_without_backends(environ, keras, keras_home):
    check_backend({"KERAS_HOME": str(keras_home), **environ}, keras)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"floatx": "float32"}', '{"backend": "tensorflow"}']
)
def test_a_file_that_names_no_backend_leaves_it_at_tensorflow(content, tmp_path):
    if content is not None:
        (tmp_path / "keras.json").write_text(content)
    check_backend({"KERAS_HOME": str(tmp_path)}, "3.4.1")


def test_keras_looks_elsewhere_where_the_home_cannot_be_written(keras_home, monkeypatch):
    keras_home.rename(keras_home.parent / ".keras")
    environ = {"HOME": str(keras_home.parent)}
    with pytest.raises(BadInput, match=r"\.keras/keras\.json"):
        check_backend(environ, "3.4.1")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    check_backend(environ, "3.4.1")


@pytest.mark.parametrize("version", ["3.0.0", "3.4.1", "3.9.2"])
def test_an_early_keras_3_is_refused_unless_tf_keras_takes_its_place(version):
    with pytest.raises(
        BadInput,
        match=rf"3\.10 or later.*received Keras {version}; pip install 'keras>=3\.10' where the ranks run",
    ):
        check_release({}, version)
    check_release({"TF_USE_LEGACY_KERAS": "1"}, version)


@pytest.mark.parametrize("version", ["2.12.0", "2.15.0", "3.10.0", "3.15.1", "4.0.0", None, "unknown"])
def test_other_releases_of_keras_are_taken(version):
    check_release({}, version)
