"""Lists, tuples and dicts of arrays mean what they mean in Keras, for fit, evaluate, predict, and items of a PyDataset.

tf.data stacks the members of a list into one tensor; unseen, that gave a loss of another model.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.class_weights import check_class_weight
from hpcdl.runtime.nests import nest_of_arrays
from hpcdl.runtime.pipelines import Pipeline
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from tests.runtime.runs import make_run

keras = tf.keras
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X[:, :1].copy()
WEIGHTS = np.linspace(0.1, 1, 40, dtype="float32")
ONE, TWO = {"x": X, "y": Y}, {"x": [X, 2 * X], "y": [Y, 3 * Y]}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def build(run, count):
    with run.scope():
        inputs = [keras.Input((4,), name=f"in{i}") for i in range(count)]
        joined = inputs[0] if count == 1 else keras.layers.Concatenate()(inputs)
        layers = [keras.layers.Dense(1, kernel_initializer="ones", name=f"out{i}") for i in range(count)]
        outputs = [layer(joined) for layer in layers]
        model = keras.Model(inputs[0] if count == 1 else inputs, outputs[0] if count == 1 else outputs)
        model.compile("sgd", loss="mse" if count == 1 else ["mse"] * count, jit_compile=False)
    return model


CASES = {
    "a list of one y": (1, {**ONE, "y": [Y]}),
    "a list of one x": (1, {**ONE, "x": [X]}),
    "a tuple of one y": (1, {**ONE, "y": (Y,)}),
    "a list of one weight": (1, {**ONE, "sample_weight": [WEIGHTS]}),
    "lists": (2, TWO),
    "tuples": (2, {name: tuple(arrays) for name, arrays in TWO.items()}),
    "lists with lists of weights": (2, {**TWO, "sample_weight": [WEIGHTS, WEIGHTS[::-1].copy()]}),
    "a dict and a list": (2, {**TWO, "x": {"in0": X, "in1": 2 * X}}),
}


@pytest.mark.filterwarnings("ignore:.*structure of `inputs`")  # Keras takes a list of one x with that warning
@pytest.mark.parametrize("case", sorted(CASES))
def test_nests_give_what_keras_gives_for_plain_arrays(case, run):
    count, data = CASES[case]

    def plain(value):
        if count == 2 or not isinstance(value, (list, tuple)):
            return value
        return value[0]

    of_keras = {name: plain(value) for name, value in data.items()}
    expected = build(run, count)
    losses = expected.fit(**of_keras, batch_size=8, shuffle=False, verbose=0).history["loss"]
    model = build(run, count)
    done = run.fit(
        model, **data, global_batch_size=8, shuffle=False, verbose=0, validation_data=tuple(data.values())
    )
    assert done.history["loss"] == pytest.approx(losses, rel=1e-5)
    evaluated = expected.evaluate(**of_keras, verbose=0, return_dict=True)["loss"]
    assert done.history["val_loss"] == pytest.approx([evaluated], rel=1e-5)
    assert run.evaluate(model, **data, verbose=0, return_dict=True)["loss"] == pytest.approx(
        evaluated, rel=1e-5
    )
    outputs = run.predict(model, data["x"], verbose=0)
    for mine, of_theirs in zip(
        tf.nest.flatten(outputs), tf.nest.flatten(expected.predict(of_keras["x"], verbose=0))
    ):
        np.testing.assert_allclose(mine, of_theirs, rtol=1e-4, atol=1e-5)


class Items(keras.utils.Sequence):
    """Batches whose parts are lists."""

    def __init__(self):
        if hasattr(keras, "ops"):
            super().__init__()

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return [X[rows], 2 * X[rows]], [Y[rows], 3 * Y[rows]]


def test_items_of_lists_give_what_arrays_give(run):
    losses = [
        run.fit(build(run, 2), *data, shuffle=False, verbose=0, **sizes).history["loss"]
        for data, sizes in (((Items(),), {}), ((TWO["x"], TWO["y"]), {"global_batch_size": 8}))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("x", [[[1, 2], [3, 4]], X.tolist(), ["a", "b"]])
def test_a_list_of_numbers_is_no_list_of_arrays(x):
    with pytest.raises(
        BadInput, match=r"received a list of numbers or texts, .*; pass np.array\(...\) of your data"
    ):
        nest_of_arrays((x, Y))


def test_class_weights_of_a_list_of_one_y_are_those_of_the_y():
    labels = np.arange(40) % 3
    (_, _, of_array), _ = nest_of_arrays((X, labels), {1: 2.0})
    (_, _, of_list), _ = nest_of_arrays((X, [labels]), {1: 2.0})
    np.testing.assert_array_equal(of_array, of_list)
    with pytest.raises(
        BadInput, match="class_weight needs one output; received 2 arrays as y; pass sample_weight"
    ):
        nest_of_arrays((X, [labels, Y]), {1: 2.0})
    with pytest.raises(BadInput, match="class_weight needs one output; received 0 arrays as y"):
        nest_of_arrays((X,), {1: 2.0})


@pytest.mark.parametrize("of_row", [(), (1,), (3,)])
def test_class_weights_multiply_sample_weights_of_every_shape(of_row):
    labels, weights = np.arange(4) % 2, np.arange(1, 4 * int(np.prod(of_row)) + 1).reshape(4, *of_row)
    (_, _, made), _ = nest_of_arrays((X[:4], labels, weights), {1: 10.0})
    assert made.shape == weights.shape
    np.testing.assert_array_equal(made[0::2], weights[0::2])
    np.testing.assert_array_equal(made[1::2], 10 * weights[1::2])
    dataset = tf.data.Dataset.from_tensor_slices((X[:4], labels, weights)).batch(4)
    rows = Pipeline(dataset, Replicas(Alone(), ["CPU:0"]), class_weight={1: 10.0}).rows
    np.testing.assert_array_equal(rows[2], made)
    with pytest.raises(BadInput, match=r"same number of rows, at least 1; received \[4, 4, 3\]"):
        nest_of_arrays((X[:4], labels, weights[:3]), {1: 10.0})


@pytest.mark.parametrize("weights", [[1, 2, 3], {"0": 2.0}, {0: "heavy"}, {0: float("nan")}, "balanced"])
def test_class_weights_are_numbers_by_class(weights):
    with pytest.raises(
        BadInput, match="must be a dict of a weight for each class number; received .*; pass e.g. {0"
    ):
        check_class_weight(weights)
