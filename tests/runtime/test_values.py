"""Data with which training could only go wrong: refused with the row, whatever form the loss has."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.values import check_values

keras = tf.keras
X = np.zeros((6, 4), np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def compiled(loss, num_outputs=3):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(num_outputs)(inputs))
    model.compile("sgd", loss=loss)
    return model


def with_value(array, row, value):
    changed = array.astype(float) if np.isnan(value) else array.copy()
    changed[row] = value
    return changed


SPARSE = [
    "sparse_categorical_crossentropy",
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    keras.losses.sparse_categorical_crossentropy,
]


@pytest.mark.parametrize("loss", SPARSE, ids=["name", "object", "function"])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_none_of_the_classes_is_refused(loss, label):
    model = compiled(loss)
    check_values(model, (X, Y), "training data")
    check_values(model, (X, Y[:, np.newaxis]), "training data")
    with pytest.raises(BadInput, match=f"labels must be 0 to 2, .*received {label} in y .*first in row 4; "):
        check_values(model, (X, with_value(Y, 4, label)), "training data")


def test_a_label_that_the_loss_ignores_is_none_of_the_classes_either():
    model = compiled(keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    check_values(model, (X, with_value(Y, 4, -1)), "training data")
    with pytest.raises(BadInput, match="received -2 in y"):
        check_values(model, (X, with_value(Y, 4, -2)), "training data")


def test_a_binary_label_is_0_or_1_or_between():
    model = compiled("binary_crossentropy", num_outputs=1)
    check_values(model, (X, Y % 2), "training data")
    check_values(model, (X, np.full(6, 0.9)), "training data")
    with pytest.raises(
        BadInput, match="labels must be between 0 and 1, .*received 2 in y of the validation data"
    ):
        check_values(model, (X, Y), "validation data")


@pytest.mark.parametrize("loss", ["mse", "hinge"])
def test_other_losses_take_any_y(loss):
    check_values(compiled(loss, 1), (X, Y - 7), "training data")


def test_nan_in_the_input_is_refused_with_its_row():
    model = compiled("mse", 1)
    with pytest.raises(BadInput, match="received NaN in x of the training data, first in row 5; "):
        check_values(model, (with_value(X, 5, np.nan), Y), "training data")
    with pytest.raises(
        BadInput, match="must be finite numbers; received inf in x of the .*, first in row 2; "
    ):
        check_values(model, (with_value(X, 2, -np.inf), Y), "training data")
    many = np.zeros((10_000, 4), np.float32)
    with pytest.raises(BadInput, match="first in row 9000"):
        check_values(model, (with_value(many, slice(9000, 9002), np.nan), many[:, 0]), "training data")


def own(y, predicted):
    return tf.where(tf.math.is_nan(y), 0.0, y - predicted)


@pytest.mark.parametrize(
    ("loss", "is_refused"),
    [("mse", True), (keras.losses.Huber(), True), (keras.losses.get("mae"), True), (own, False)],
    ids=["name", "object", "function", "own"],
)
@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (np.inf, "inf")])
def test_what_a_loss_of_keras_compares_is_finite_and_of_its_own_a_user_knows(loss, is_refused, value, said):
    model, y = compiled(loss, 1), with_value(X[:, 0], 5, value)
    if is_refused:
        with pytest.raises(BadInput, match=f"received {said} in y of the training data, first in row 5; "):
            check_values(model, (X, y), "training data")
    else:
        check_values(model, (X, y), "training data")


@pytest.mark.parametrize("loss", ["mse", own], ids=["Keras'", "own"])
def test_a_weight_is_a_finite_number(loss):
    weights = np.ones(len(X))
    check_values(compiled(loss, 1), (X, X[:, 0], weights), "training data")
    with pytest.raises(BadInput, match="sample weights must be .* NaN in sample_weight of the training data"):
        check_values(compiled(loss, 1), (X, X[:, 0], with_value(weights, 3, np.nan)), "training data")


@pytest.mark.parametrize("label", [0.5, np.nan])
def test_a_class_is_a_whole_number(label):
    model = compiled("sparse_categorical_crossentropy")
    check_values(model, (X, Y.astype("float32")), "training data")
    with pytest.raises(BadInput, match=f"0 to 2, whole numbers, .*received {label} in y .*first in row 4"):
        check_values(model, (X, with_value(Y.astype("float32"), 4, label)), "training data")


def test_several_inputs_and_outputs_are_named():
    inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    outputs = [keras.layers.Dense(3)(joined), keras.layers.Dense(1)(joined)]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss=["sparse_categorical_crossentropy", "mse"])
    check_values(model, ({"left": X, "right": X}, [Y, X[:, 0]]), "training data")
    with pytest.raises(BadInput, match="NaN in x\\['right'\\]"):
        check_values(model, ({"left": X, "right": with_value(X, 0, np.nan)}, [Y, X[:, 0]]), "training data")
    with pytest.raises(BadInput, match="received 9 in y\\[0\\]"):
        check_values(model, ({"left": X, "right": X}, [with_value(Y, 1, 9), X[:, 0]]), "training data")


def seen_and_garment(form):
    """Builds a model of two outputs, whose names sort otherwise than they stand."""
    inputs = keras.Input((4,))
    seen, garment = keras.layers.Dense(1, name="seen")(inputs), keras.layers.Dense(3, name="garment")(inputs)
    model = keras.Model(inputs, [seen, garment] if form == "list" else {"seen": seen, "garment": garment})
    model.compile("sgd", loss={"garment": "sparse_categorical_crossentropy", "seen": "mse"})
    return model


@pytest.mark.parametrize("form", ["list", "dict"])
def test_outputs_losses_and_labels_meet_by_name(form):
    model = seen_and_garment(form)
    y = {"seen": X[:, 0], "garment": Y}
    check_values(model, (X, y), "training data")
    with pytest.raises(BadInput, match="labels must be 0 to 2, .*received 3 in y\\['garment'\\]"):
        check_values(model, (X, {**y, "garment": with_value(Y, 4, 3)}), "training data")
    assert np.isfinite(model.evaluate(X, y, verbose=0)).all()  # as Keras pairs them


def test_outputs_that_no_label_names_are_left_to_keras():
    inputs = keras.Input((4,))
    outputs = {"a": keras.layers.Dense(3)(inputs), "b": keras.layers.Dense(3)(inputs)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss={"a": "sparse_categorical_crossentropy", "b": None})
    check_values(model, (X, {"a": Y, "b": Y + 9}), "training data")
    check_values(model, (X, {"c": Y + 9}), "training data")
    with pytest.raises(BadInput, match="received 9 in y\\['a'\\]"):
        check_values(model, (X, {"a": Y + 9, "b": Y}), "training data")


def test_one_loss_is_that_of_all_outputs():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(3)(inputs), keras.layers.Dense(9)(inputs)])
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    with pytest.raises(BadInput, match="received 9 in y\\[1\\]"):
        check_values(model, (X, [Y, Y + 7]), "training data")
