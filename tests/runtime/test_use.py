"""What counts as use of hpcdl: what lets ranks train together, and looking at a model that they did not train alone."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.use import check_used, note_use
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
