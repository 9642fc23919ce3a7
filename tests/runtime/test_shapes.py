"""Shapes that Keras takes pass, and those with which training could only go wrong are refused with both."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.shapes import check_shapes

keras = tf.keras


def model(rows, outputs, loss, num_inputs=1):
    inputs = [keras.Input(rows) for _ in range(num_inputs)]
    joined = inputs[0] if num_inputs == 1 else keras.layers.Concatenate()(inputs)
    flat = keras.layers.Flatten()(joined)
    made = keras.Model(inputs[0] if num_inputs == 1 else inputs, keras.layers.Dense(outputs)(flat))
    made.compile("sgd", loss=loss, jit_compile=False)
    return made


def check(made, x, *y):
    check_shapes(made, (x, *y), "training data")


@pytest.mark.parametrize(
    ("rows", "x", "outputs", "loss", "y"),
    [
        ((4,), (20, 4), 1, "mse", (20, 1)),
        ((4,), (20, 4), 1, "mse", (20,)),
        ((1,), (20,), 1, keras.losses.MeanSquaredError(), (20, 1)),
        ((4, 4, 1), (20, 4, 4), 3, "sparse_categorical_crossentropy", (20, 1)),
        ((4, 4, 1), (20, 4, 4), 3, "sparse_categorical_crossentropy", (20,)),
        ((4, 4, 1), (20, 4, 4, 1), 3, "categorical_crossentropy", (20, 3)),
        ((4,), (20, 4, 1), 3, lambda y, p: tf.reduce_mean((p - y[:, :1]) ** 2), (20, 7)),
    ],
)
def test_what_keras_takes_passes(rows, x, outputs, loss, y):
    check(model(rows, outputs, loss), np.zeros(x), np.zeros(y))


@pytest.mark.parametrize(
    ("rows", "x", "outputs", "loss", "y", "said"),
    [
        ((4,), (20, 5), 1, "mse", (20, 1), r"an input has rows of \(4\); received x of .* rows of \(5,\)"),
        ((8, 8, 3), (20, 8, 8), 1, "mse", (20,), r"rows of \(8, 8, 3\); received x of .* rows of \(8, 8\)"),
        ((4,), (20, 4), 1, "mse", (20, 3), r"mean_squared_error of an output has rows of \(1\)"),
        (
            (4,),
            (20, 4),
            3,
            keras.losses.CategoricalCrossentropy(),
            (20,),
            r"received y of .* rows of \(\); .*sparse_",
        ),
        (
            (4,),
            (20, 4),
            3,
            "sparse_categorical_crossentropy",
            (20, 3),
            r"the y of .* has rows of \(\); .* \(3,\); for one-hot rows take categorical_crossentropy",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_shapes(rows, x, outputs, loss, y, said):
    with pytest.raises(BadInput, match=said):
        check(model(rows, outputs, loss), np.zeros(x), np.zeros(y))


def test_each_input_needs_an_array_and_is_named():
    two = model((4,), 1, "mse", num_inputs=2)
    with pytest.raises(BadInput, match="received 1 arrays as x of the training data, and 2 inputs"):
        check(two, np.zeros((20, 4)))
    with pytest.raises(BadInput, match=r"received x\[1\] of the training data with rows of \(3,\)"):
        check(two, [np.zeros((20, 4)), np.zeros((20, 3))])
    check(two, [np.zeros((20, 4)), np.zeros((20, 4))], np.zeros(20))


def named_inputs(form):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()([left, right]))
    made = keras.Model([right, left] if form == "list" else {"left": left, "right": right}, outputs)
    made.compile("sgd", loss="sparse_categorical_crossentropy", jit_compile=False)
    return made


@pytest.mark.parametrize("form", ["list", "dict"])
def test_arrays_of_a_dict_belong_to_the_inputs_of_their_names(form):
    made = named_inputs(form)
    x = {"left": np.zeros((20, 4)), "right": np.zeros((20, 3))}
    check(made, {**x, "what Keras leaves out": np.zeros((20, 9))}, np.zeros(20))
    with pytest.raises(BadInput, match=r"received x\['right'\] of the training data with rows of \(5,\)"):
        check(made, {**x, "right": np.zeros((20, 5))})
    with pytest.raises(
        BadInput, match=r"with the names \['left', 'rigth'\], without 'right'; name the arrays"
    ):
        check(made, {"left": x["left"], "rigth": x["right"]})


def test_targets_of_a_dict_belong_to_the_outputs_of_their_names():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(1, name="seen")(inputs), keras.layers.Dense(3, name="garment")(inputs)]
    made = keras.Model(inputs, outputs)
    made.compile("sgd", loss={"garment": "categorical_crossentropy", "seen": "mse"}, jit_compile=False)
    x, y = np.zeros((20, 4)), {"garment": np.zeros((20, 3)), "seen": np.zeros(20)}
    check(made, x, y)
    with pytest.raises(BadInput, match=r"received y\['seen'\] of the training data with rows of \(2,\)"):
        check(made, x, {**y, "seen": np.zeros((20, 2))})


def test_a_model_to_predict_with_needs_no_loss():
    inputs = keras.Input((4,))
    made = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    check(made, np.zeros((20, 4)))
    with pytest.raises(BadInput, match="an input has rows of"):
        check(made, np.zeros((20, 5)))
