"""A model and data from a user's own functions: found, called, and refused in one line where they do not fit."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.words import RunSettings, WorkloadOptions
from hpcdl.runtime.targets import Data, Target, final_metrics, load_function, of_functions, of_workload, train
from tests.runtime.runs import make_run

keras = tf.keras

MODULE = """
import numpy

class Model:
    optimizer = "sgd"

class nets:
    @staticmethod
    def small():
        return Model()

def build():
    return Model()

def uncompiled():
    model = Model()
    model.optimizer = None
    return model

def nothing():
    pass

def data():
    return (([1, 2], [3, 4]), ([5], [6]))

def weighted():
    return [[[1, 2], [3, 4], [1, 1]], None]

def one_part():
    return numpy.array([1, 2]), numpy.array([3, 4])

def data_sets():
    import tensorflow as tf
    return tf.data.Dataset.range(4), tf.data.Dataset.range(2)

def parts():
    return lambda shard: [1, 2], None

def only_x():
    return ([1, 2], [3, 4], [5, 6])

def sized(width, depth=2):
    return Model()

number = 7
"""


@pytest.fixture(autouse=True)
def _my_modules(tmp_path, monkeypatch):
    """Makes a working folder with modules in it; they are forgotten afterwards."""
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("my_module", "broken", "pack"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["my_module:build", "pack.models:build", "my_module:nets.small"])
def test_a_function_is_found_in_the_working_folder(name):
    assert load_function("TARGET", name)().optimizer == "sgd"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_modul:build", "there is no module 'my_modul'.*did you mean my_module"),
        ("pack.model:build", "there is no module 'pack.model'.*did you mean models"),
        ("pac.models:build", "there is no module 'pac'.*did you mean pack"),
        ("my_module:biuld", "my_module has no 'biuld'; did you mean build"),
        ("my_module:zzz", "has no 'zzz'; there are Model, nets, build, uncompiled"),
        ("my_module:nets.smal", "has no 'smal'; did you mean small"),
        ("my_module:number", "which is int"),
        ("my_module:sized", "my_module:sized needs width;"),
    ],
)
def test_what_does_not_exist_or_cannot_be_called_is_refused_with_near_names(name, said):
    with pytest.raises(BadInput, match=said) as refusal:
        load_function("TARGET", name)
    assert str(refusal.value).startswith("TARGET must name a ")
    assert "\n" not in str(refusal.value)


def test_a_module_that_is_there_and_fails_keeps_its_own_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_function("TARGET", "broken:build")


def test_the_parts_of_the_data_are_read():
    target = of_functions("my_module:build", "my_module:data")
    assert target.data("float32", 1) == Data(([1, 2], [3, 4]), ([5], [6]), "my_module:data")
    assert of_functions("my_module:build", "my_module:weighted").data("float32", 1).test is None
    assert len(of_functions("my_module:build", "my_module:weighted").data("float32", 1).train) == 3
    sets = of_functions("my_module:build", "my_module:data_sets").data("float32", 1)
    assert [len(sets.train), int(sets.train[0].cardinality()), int(sets.test[0].cardinality())] == [1, 4, 2]
    assert callable(of_functions("my_module:build", "my_module:parts").data("float32", 1).train[0])


@pytest.mark.parametrize(
    ("data", "received"),
    [
        ("nothing", "received None;"),
        ("only_x", "received tuple of 3;"),
        ("one_part", "received ndarray as its train part"),
        ("build", "received Model;"),
    ],
)
def test_data_of_another_form_are_refused(data, received):
    with pytest.raises(BadInput, match=received) as refusal:
        of_functions("my_module:build", f"my_module:{data}").data("float32", 1)
    assert "((x_train, y_train), (x_test, y_test))" in str(refusal.value)


@pytest.mark.parametrize(
    ("build", "received"), [("nothing", "None"), ("uncompiled", "Model"), ("data", "tuple")]
)
def test_a_function_that_returns_no_compiled_model_is_refused(build, received):
    target = of_functions(f"my_module:{build}", "my_module:data")
    with pytest.raises(BadInput, match=f"must return a compiled Keras model; received {received}"):
        target.build(None)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.91234},
            "test accuracy 91.23 %",
        ),
        ({"loss": 1.5}, "training loss 1.5"),
        ({"loss": 1.0, "mae": 2.0, "val_loss": 3.0, "val_mae": 4.25}, "test mae 4.25"),
        ({"loss": 1.0, "f1_score": [0.25, 0.75]}, "training f1_score 0.5"),
    ],
)
def test_the_result_is_the_metric_of_the_last_epoch(values, text):
    assert final_metrics(values) == text


def small(learning_rate=None):
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="tanh")(inputs))
    made = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
    optimizer = keras.optimizers.Adam(0.01, clipnorm=0.5)
    made.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    MADE.append(made)
    return made


MADE = []
ROWS = np.random.default_rng(0).normal(size=(170, 4))
PAIRS = tf.data.Dataset.from_tensor_slices((ROWS, ROWS.argmax(axis=1) % 3))
SMALL = Target("small", small, lambda dtype, least: Data((ROWS, ROWS.argmax(axis=1) % 3), None, "random"))


def test_steps_that_xla_compiles_are_those_that_it_does_not(tmp_path):
    before = keras.backend.floatx()
    keras.layers.Dense(1)  # as a user's module may have, before the precision is known
    try:
        for xla in (False, True):
            keras.utils.set_random_seed(0)
            run = make_run(tmp_path / str(xla), settings=RunSettings(xla=xla))
            train(run, SMALL, WorkloadOptions(epochs=2), "float64")
    finally:
        keras.backend.set_floatx(before)
        keras.mixed_precision.set_global_policy(before)
    plain, compiled = MADE[-2:]
    assert (bool(plain.jit_compile), compiled.jit_compile) == (False, True)
    for ours, theirs in zip(compiled.get_weights(), plain.get_weights()):
        assert ours.dtype == "float64"
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_the_learning_rate_of_a_workload_is_for_its_recommended_batch_however_the_batch_is_said(tmp_path):
    assert of_workload("fashion_mnist/fc64", None).reference_batch_size == 128
    target = dataclasses.replace(SMALL, reference_batch_size=17, lr_scaling="linear")
    for said, factor in (({"global_batch_size": 34}, 2), ({"per_replica_batch_size": 85}, 5), ({}, 32 / 17)):
        train(make_run(tmp_path / str(factor)), target, WorkloadOptions(epochs=1, **said), None)
        record = json.loads((tmp_path / str(factor) / "run.json").read_text())
        assert record["config"]["lr_factor"] == factor


@pytest.mark.parametrize("batches", [lambda shard: PAIRS.batch(10), PAIRS.batch(10)], ids=["function", "set"])
def test_data_that_have_batches_are_trained_on_by_those(batches, tmp_path):
    target = dataclasses.replace(
        SMALL, data=lambda dtype, least: Data((batches,), (PAIRS.batch(50),), "sets")
    )
    train(make_run(tmp_path / "run"), target, WorkloadOptions(epochs=1), None)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["global_batch_size"] == 10
    assert "val_accuracy" in record["final_metrics"]
