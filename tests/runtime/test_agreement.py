"""Ranks that would take different steps are told apart, and what differs is named in few words."""

from __future__ import annotations

import importlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.plan import Plan
from hpcdl.common.schedule import parse_interval, resolve_batches
from hpcdl.runtime.agreement import check, describe, differences, modules_of_the_user
from hpcdl.runtime.feed import Arrays
from hpcdl.runtime.identity import digest_of_arrays, identity

keras = tf.keras
X, Y = np.zeros((20, 4), "float32"), np.zeros((20,), "int32")


def plan(**changes):
    batches = resolve_batches(changes.pop("per_replica_batch_size", 4), num_replicas=2)
    row = {
        "title": "t", "launcher": "openmpi", "world_size": 2, "num_nodes": 1, "strategy": "horovod",
        "replicas_per_process": 1, "batches": batches, "num_samples": 20, "epochs": 2, "scale_epochs": False,
        "learning_rate": 0.1, "lr_scaling": "none", "warmup_epochs": 0,
    }  # fmt: skip
    return Plan(**{**row, **changes})


def model(rate=0.5, activation="relu", momentum=0.0, loss="mse", metrics=("accuracy",), **compiled):
    layers = keras.layers
    made = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation=activation), layers.Dropout(rate), layers.Dense(3)]
    )
    made.compile(keras.optimizers.SGD(momentum=momentum), loss=loss, metrics=list(metrics), **compiled)
    return made


def described(made=None, of_plan=None, data=(X, Y), validation=None, seed=0, shuffle=True, every="1epoch"):
    made, of_plan = made or model(), of_plan or plan()
    return describe(
        made,
        of_plan,
        identity(made, digest_of_arrays(data), of_plan, seed, shuffle),
        validation and Arrays(validation, 20),
        parse_interval(every),
    )


class Subclassed(keras.Model):
    """A model that cannot write its configuration."""

    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        raise NotImplementedError


def subclassed(units):
    made = Subclassed(units)
    made.compile("sgd", loss=lambda y, p: tf.reduce_mean(p))
    made(X)
    return made


def test_the_same_program_is_alike_on_all_ranks_whatever_keras_has_counted():
    first = described()
    keras.layers.Dense(3)  # made on one rank only: later names count it
    assert list(differences(first, described())) == []
    assert list(differences(described(subclassed(2)), described(subclassed(2)))) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: described(model(rate=0.25)), "model config"),
        (lambda: described(model(activation="tanh")), '("tanh", not "relu")'),
        (lambda: described(model(momentum=0.9)), "momentum (0.9, not 0.0)"),
        (lambda: described(model(loss="mae")), "loss "),
        (lambda: described(model(loss_weights=[2.0])), "loss_weights ([2.0], not null)"),
        (lambda: described(model(metrics=())), "metrics "),
        (lambda: described(of_plan=plan(epochs=3)), "plan epochs (3, not 2)"),
        (lambda: described(of_plan=plan(per_replica_batch_size=5)), "plan batches"),
        (lambda: described(data=(X[:19], Y[:19])), "data "),
        (lambda: described(data=(X.astype("float64"), Y)), "data "),
        (lambda: described(validation=(X, Y)), "validation "),
        (lambda: described(seed=1), "seed (1, not 0)"),
        (lambda: described(shuffle=False), "shuffle (false, not true)"),
        (lambda: described(every="5steps"), "checkpoint_every steps (5, not null)"),
        (lambda: described(model(steps_per_execution=4)), "steps_per_execution (4, not 1)"),
        (lambda: described(model(run_eagerly=True)), "run_eagerly (true, not false)"),
        (lambda: described(subclassed(2)), "model layers"),
    ],
)
def test_what_differs_is_named(other, said):
    text = ", ".join(differences(described(), other()))
    assert said in text
    assert "\n" not in text


def test_whose_statistics_are_normalized_by_is_part_of_a_model():
    made = []
    for synchronized in (False, True):
        layers = [keras.Input((4,)), keras.layers.BatchNormalization(synchronized=synchronized)]
        made.append(keras.Sequential(layers))
        made[-1].compile("sgd", loss="mse")
    assert any("model" in text for text in differences(described(made[0]), described(made[1])))


class Ramp(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that cannot write its configuration."""

    def __init__(self, top):
        self.top, self.function = top, lambda step: step

    def __call__(self, step):
        return self.top


class Power(keras.losses.Loss):
    """A loss that cannot write its configuration."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred) ** self.power, axis=-1)

    def get_config(self):
        raise NotImplementedError


def test_schedules_and_losses_that_cannot_write_themselves_are_compared_by_their_plain_attributes():
    def described_with(top=0.1, power=2.0, momentum=0.9):
        made = model(loss=Power(power))
        made.compile(keras.optimizers.SGD(Ramp(top), momentum=momentum), loss=Power(power))
        return described(made)

    first = described_with()
    assert list(differences(first, described_with())) == []
    for change in ({"top": 0.2}, {"power": 3.0}, {"momentum": 0.5}):
        ((name, value),) = change.items()
        (text,) = differences(first, described_with(**change))
        assert name in text
        assert f"({value}, not" in text


def test_a_model_that_cannot_write_itself_is_compared_by_its_variables():
    text, *_ = differences(described(subclassed(2)), described(subclassed(3)))
    assert text.startswith("model layers")
    assert "(3, not 2)" in text


class World:
    """Ranks that are threads: each one's value reaches all."""

    def __init__(self, size):
        self.values = [None] * size
        self.calls = [0] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def seen_by(self, rank):
        def gather_json(value):
            self.calls[rank] += 1
            self.values[rank] = value
            self.barrier.wait()
            gathered = list(self.values)
            self.barrier.wait()
            return gathered

        def gather(array):
            return np.stack(gather_json(array))

        return SimpleNamespace(rank=rank, gather=gather, gather_json=gather_json)

    def check(self, of_ranks):
        def one(rank):
            try:
                check(self.seen_by(rank), of_ranks[rank])
            except BadInput as refusal:
                return str(refusal)
            return None

        with ThreadPoolExecutor(len(of_ranks)) as threads:
            return list(threads.map(one, range(len(of_ranks))))


def test_ranks_that_are_alike_compare_one_number_only():
    world = World(3)
    assert world.check([{"plan": 1, "data": [2]}] * 3) == [None] * 3
    assert world.calls == [1] * 3


def test_every_rank_is_told_of_the_first_that_differs():
    alike, other = {"plan": 1, "data": [2]}, {"plan": 7, "data": [3]}
    told = World(4).check([alike, alike, other, {"plan": 8, "data": [2]}])
    assert len(set(told)) == 1
    assert "rank 2 differs from rank 0 in plan (7, not 1), data [0] (3, not 2); start all" in told[0]


def test_what_only_some_ranks_have_is_compared_on_those():
    with_plots = {"plan": 1, "module plots": "a"}
    assert World(3).check([with_plots, {"plan": 1}, {"plan": 1}]) == [None] * 3
    told = World(3).check([with_plots, {"plan": 1}, {"plan": 1, "module plots": "b"}])
    assert 'rank 2 differs from rank 0 in module plots ("b", not "a"); start all' in told[0]


def test_the_users_modules_go_by_name_and_content_wherever_they_lie(tmp_path, monkeypatch):
    found = []
    for place, code in (("a", "rate = 1"), ("b", "rate = 1"), ("c", "rate = 2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "my_steps.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path / place))
        monkeypatch.delitem(sys.modules, "my_steps", raising=False)
        importlib.import_module("my_steps")
        found.append(modules_of_the_user())
    monkeypatch.delitem(sys.modules, "my_steps")
    here, there, other = found
    assert here == there
    assert [name for name in here if here[name] != other[name]] == ["my_steps"]
    assert not {name.split(".")[0] for name in here} & {
        "json",
        "numpy",
        "tensorflow",
        "keras",
        "hpcdl",
        "pytest",
    }
    assert "module my_steps" not in described()  # it is unloaded
