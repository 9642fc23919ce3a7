"""What counts as use of hpcdl: what lets ranks train together, and looking at a model that they did not train alone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.use import check_used, note_use
from tests.bare import environ_of_script
from tests.runtime.runs import make_run

keras = tf.keras
X, Y = np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")


def built():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
    return model


@pytest.fixture(autouse=True)
def _unused(monkeypatch):
    monkeypatch.setenv("HPCDL_USED_BY", "")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def is_used(environ=os.environ):
    """Asks what `hpcdl train --np 2` asks when the script is over."""
    try:
        check_used("train.py", 2, environ)
    except BadInput:
        return False
    return True


LOOKS = {
    "evaluate": lambda run, model, folder: run.evaluate(model, X, Y, verbose=0),
    "predict": lambda run, model, folder: run.predict(model, X, verbose=0),
    "save": lambda run, model, folder: run.save(model, folder / "model.keras"),
}


def by_fit(model):
    model.fit(X, Y, verbose=0)


def by_batches(model):
    model.train_on_batch(X, Y)


@pytest.mark.parametrize("train", [by_fit, by_batches])
@pytest.mark.parametrize("look", LOOKS)
def test_a_model_that_keras_alone_has_trained_is_no_use_whatever_is_done_with_it(look, train, run, tmp_path):
    with run.scope():
        model = built()
    train(model)
    LOOKS[look](run, model, tmp_path)
    assert not is_used()


@pytest.mark.parametrize("look", LOOKS)
def test_a_script_that_only_looks_at_a_model_that_was_trained_elsewhere_uses_hpcdl(look, run, tmp_path):
    trained = built()
    by_fit(trained)
    trained.save(str(tmp_path / "trained.keras"))
    with run.scope():
        model = keras.models.load_model(str(tmp_path / "trained.keras"))
    assert not is_used()
    LOOKS[look](run, model, tmp_path)
    assert is_used()


def test_a_look_before_does_not_excuse_to_train_alone_and_a_look_after_does_not_undo_it(run):
    with run.scope():
        model, other = built(), built()
    run.evaluate(model, X, Y, verbose=0)
    by_fit(model)
    run.evaluate(model, X, Y, verbose=0)
    assert not is_used()
    run.predict(other, X, verbose=0)
    assert not is_used()


def test_to_train_together_counts_whatever_else_is_trained(run, tmp_path):
    with run.scope():
        model, other = built(), built()
    run.fit(model, X, Y, global_batch_size=4, verbose=0)
    by_fit(other)
    run.evaluate(other, X, Y, verbose=0)
    run.save(model, tmp_path / "model.keras")
    assert is_used()


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.broadcast([tf.Variable(1.0)]),
        lambda run: run.shard(tf.data.Dataset.range(2)),
        lambda run: run.average_gradients([tf.constant(1.0)]),
    ],
    ids=["broadcast", "shard", "average_gradients"],
)
def test_what_a_loop_of_ones_own_shares_counts(call, run):
    assert not is_used()
    call(run)
    assert is_used()


def test_neither_a_place_nor_words_count(run):
    with run.scope():
        run.print("here", run.rank)
    run.barrier()
    assert not is_used()


def test_the_use_of_the_process_that_started_this_one_does_not_count():
    environ = {"HPCDL_USED_BY": f"{os.getppid()} trained"}
    assert not is_used(environ)
    note_use(environ)
    assert is_used(environ)
    check_used("train.py", 1, {})


@pytest.mark.parametrize(
    ("code", "trained"),
    [
        ("", False),
        ("import tensorflow", False),
        ("import hpcdl; hpcdl.init()", False),
        ("import tensorflow as tf; tf.zeros(1)", True),
        ("import tensorflow as tf; tf.keras.layers.Dense(1).build((None, 1))", True),
    ],
    ids=["nothing", "loaded", "init", "computed", "weights"],
)
def test_nothing_can_have_been_trained_before_tensorflow_has_computed(code, trained):
    # Asked twice, since to ask must not be what counts.
    asked = f"{code}\nfrom hpcdl.runtime.use import may_have_trained as m\nprint(m(), m())"
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environ_of_script(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-2:] == [str(trained)] * 2


#: What `init` does for a rank of two; the hooks are those of others, before and after it.
AT_END = """
import atexit, os, subprocess, sys
from hpcdl.runtime import uncaught
from hpcdl.runtime.use import check_at_end, leave_check, note_use
uncaught.install()
atexit.register(print, "before")
check_at_end(2)
check_at_end(2)
atexit.register(print, "after")
"""


@pytest.mark.parametrize(
    ("rest", "status", "told"),
    [
        pytest.param("", 2, "hpcdl: a script that runs on several ranks must", id="it ends"),
        pytest.param("sys.exit()", 2, "hpcdl: a script that runs on several ranks must", id="it leaves"),
        pytest.param("note_use(os.environ)", 0, "", id="it has used hpcdl"),
        pytest.param(
            "note_use(os.environ); sys.exit(3)", 3, "", id="used, and left with a status of its own"
        ),
        pytest.param("raise ValueError('mine')", 1, "Traceback", id="an error of its own"),
        pytest.param(
            "from hpcdl.common.errors import BadInput; raise BadInput('the rule')",
            2,
            "hpcdl: the rule",
            id="an error of hpcdl's",
        ),
        pytest.param("leave_check()", 0, "", id="hpcdl train runs it"),
        pytest.param(
            "note_use(os.environ)\nif os.fork() == 0:\n    os.environ.clear()\n    sys.exit(0)\n"
            "assert os.wait()[1] == 0",
            0,
            "",
            id="a fork",
        ),
    ],
)
def test_a_script_that_a_bare_launcher_started_has_status_2_when_all_is_tidied(rest, status, told, tmp_path):
    (tmp_path / "m.py").write_text(AT_END + rest)
    done = subprocess.run(
        [sys.executable, "m.py"],
        cwd=tmp_path,
        env=environ_of_script(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.split()[-2:] == ["after", "before"]
    assert done.stderr.startswith(told)
    assert bool(told) == bool(done.stderr)
    if status == 2:
        assert done.stderr.count("\n") == 1
