"""What cannot be trained exactly is refused in one line, before a step is taken or a file is written."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.runtime.execution import Execution
from tests.runtime.runs import TwoRanks, make_run

keras = tf.keras
LOSSES = keras.losses


@pytest.fixture
def run(tmp_path):
    """A run of two ranks, as rank 0 sees it before the first exchange."""
    return make_run(tmp_path / "run", TwoRanks())


def model(layers=(), optimizer="sgd", **compiled):
    made = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    made.compile(optimizer, **{"loss": "mse", "jit_compile": False, **compiled})
    return made


def wrapped():
    optimizer = keras.optimizers.SGD()
    optimizer._allreduce_grads = lambda gradients: gradients  # what Horovod's wrapper has
    return model(optimizer=optimizer)


class Synchronized(keras.layers.Dense):
    """A layer that asks for what hpcdl gives to BatchNormalization only."""

    synchronized = True


def uncompiled():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


X, Y = np.zeros((20, 4), "float32"), np.zeros((20, 1), "float32")
GLOBAL = {"global_batch_size": 4}
CASES = {
    "no batch size": (model, (X, Y), {}, "batch_size"),
    "both batch sizes": (model, (X, Y), {"global_batch_size": 4, "per_replica_batch_size": 2}, "batch_size"),
    "a bare batch size": (model, (X, Y), {"batch_size": 4}, "per_replica_batch_size=4"),
    "an indivisible batch": (model, (X, Y), {"global_batch_size": 5}, "divi"),
    "a batch of 0": (model, (X, Y), {"per_replica_batch_size": 0}, "received 0"),
    "no epochs": (model, (X, Y), {**GLOBAL, "epochs": 0}, "epochs"),
    "an unknown scaling": (model, (X, Y), {**GLOBAL, "lr_scaling": "liner"}, "linear"),
    "a negative warmup": (model, (X, Y), {**GLOBAL, "warmup_epochs": -1}, "warmup_epochs"),
    "an uncompiled model": (uncompiled, (X, Y), GLOBAL, "compile"),
    "an optimizer of Horovod's": (wrapped, (X, Y), GLOBAL, "DistributedOptimizer"),
    "rows that do not match": (model, (X, Y[:7]), GLOBAL, "[20, 7]"),
    "no rows": (model, (X[:0], Y[:0]), GLOBAL, "[0, 0]"),
    "data that are no arrays": (model, (iter([1, 2]), Y), GLOBAL, "arrays"),
    "a loss without reduction": (
        lambda: model(loss=LOSSES.MeanSquaredError(reduction="none")),
        (X, Y),
        GLOBAL,
        "'none'",
    ),
    "compilation by XLA": (lambda: model(jit_compile=True), (X, Y), GLOBAL, "jit_compile=False"),
    "another synchronized layer": (lambda: model([Synchronized(2)]), (X, Y), GLOBAL, "BatchNormalization"),
    "class weights of no classes": (
        model,
        (X, X[:, :, None]),
        {**GLOBAL, "class_weight": {0: 2}},
        "(20, 4, 1)",
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_is_refused_in_one_line_with_nothing_written(case, run, tmp_path):
    build, data, arguments, said = CASES[case]
    with run.scope():
        made = build()
    with pytest.raises(BadInput) as refusal:
        run.fit(made, *data, **arguments, verbose=0)
    text = str(refusal.value)
    assert said in text
    assert "\n" not in text
    assert ";" in text  # the rule; what was received; the way out
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_keras_is_refused(run):
    with pytest.raises(BadInput, match="TF_USE_LEGACY_KERAS"):
        run.fit(tf.Module(), X, Y, **GLOBAL)


def test_a_model_built_outside_the_scope_is_refused_in_every_strategy(run):
    with pytest.raises(BadInput, match="built inside `with run.scope"):
        run.fit(model(), X, Y, **GLOBAL)


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 compiles by XLA only where it is told to")
def test_what_keras_compiles_by_itself_is_not_refused_but_said(run, monkeypatch):
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: True)  # as on a GPU
    with run.scope():
        made = model(jit_compile="auto")
    assert made.jit_compile is True
    execution = Execution(made, run._replicas)
    assert execution.overrides == {"_jit_compile": False}
    assert "jit_compile" in execution.notices[0]


def test_a_strategy_that_is_not_known_is_refused_with_the_near_name():
    with pytest.raises(BadInput, match="mirrored"):
        hpcdl.init(strategy="miror")


def test_another_backend_of_keras_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(BadInput, match="received KERAS_BACKEND=jax; unset it"):
        hpcdl.init()
