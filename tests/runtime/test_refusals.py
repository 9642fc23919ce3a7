"""What cannot be trained exactly is refused in one line, before a step is taken or a file is written."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Choice, Topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.training import Run

keras = tf.keras
LOSSES = keras.losses


class TwoRanks(Alone):
    """Rank 0 of a world of two whose other rank must never be waited for."""

    size = 2

    def sum(self, tensors):
        raise AssertionError("a refusal must come before the first exchange")

    broadcast = gather = gather_json = sum


@pytest.fixture
def run(tmp_path):
    """A run of two ranks, as rank 0 sees it before the first exchange."""
    topology = Topology(0, 2, 0, 2, 0, 1, "node1", "openmpi")
    replicas = Replicas(TwoRanks(), ["CPU:0"])
    where = tmp_path / "run"
    return Run(topology, Choice("horovod", 1), replicas, 0, where, False, RunSettings(), BenchSettings())


def model(layers=(), optimizer="sgd", **compiled):
    made = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    made.compile(optimizer, **{"loss": "mse", "jit_compile": False, **compiled})
    return made


def wrapped():
    optimizer = keras.optimizers.SGD()
    optimizer._allreduce_grads = lambda gradients: gradients  # what Horovod's wrapper has
    return model(optimizer=optimizer)


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
    "a summed loss": (lambda: model(loss=LOSSES.MeanSquaredError(reduction="sum")), (X, Y), GLOBAL, "'sum'"),
    "compilation by XLA": (lambda: model(jit_compile=True), (X, Y), GLOBAL, "jit_compile=False"),
    "several steps per execution": (
        lambda: model(steps_per_execution=2),
        (X, Y),
        GLOBAL,
        "steps_per_execution",
    ),
    "a masked model": (lambda: masked(), (X[:, :, None], Y), GLOBAL, "mask"),
    "class weights of no classes": (
        model,
        (X, X[:, :, None]),
        {**GLOBAL, "class_weight": {0: 2}},
        "(20, 4, 1)",
    ),
}


def masked():
    layers = keras.layers
    made = keras.Sequential([keras.Input((4, 1)), layers.Masking(), layers.LSTM(2), layers.Dense(1)])
    made.compile("sgd", loss="mse", jit_compile=False)
    return made


@pytest.mark.parametrize("case", sorted(CASES))
def test_is_refused_in_one_line_with_nothing_written(case, run, tmp_path):
    build, data, arguments, said = CASES[case]
    made = build()
    with pytest.raises(BadInput) as refusal:
        run.fit(made, *data, **arguments, verbose=0)
    text = str(refusal.value)
    assert said in text
    assert "\n" not in text
    assert ";" in text  # the rule; what was received; the way out
    assert not list(tmp_path.iterdir())


def test_a_strategy_that_is_not_known_is_refused_with_the_near_name():
    with pytest.raises(BadInput, match="mirrored"):
        hpcdl.init(strategy="miror")
