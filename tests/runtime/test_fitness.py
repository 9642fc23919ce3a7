"""What Keras would only say in the first step, in a traceback, is refused before, with what was received."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.fitness import check_data, check_inputs
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas

keras = tf.keras
X, Y = np.zeros((20, 4), "float32"), np.zeros((20, 1), "float32")
LABELS = np.arange(20) % 3
CLASSES = "sparse_categorical_crossentropy"


class Own(keras.Model):
    """Says neither its inputs nor its outputs."""

    def __init__(self, is_dict=False):
        super().__init__()
        self.dense, self.is_dict = keras.layers.Dense(3, activation="softmax"), is_dict

    def call(self, inputs, training=False):
        outputs = self.dense(inputs)
        return {"garment": outputs} if self.is_dict else outputs


def own(is_dict=False):
    made = Own(is_dict)
    made(X[:1])
    made.compile("sgd", {"garment": CLASSES} if is_dict else CLASSES, jit_compile=False)
    return made


def functional(loss="mse", units=1, **arguments):
    inputs = keras.Input((4,))
    made = keras.Model(inputs, keras.layers.Dense(units)(inputs))
    made.compile("sgd", loss, jit_compile=False, **arguments)
    return made


def two(loss=("mse", CLASSES), is_dict=False):
    inputs = keras.Input((4,))
    outputs = {"seen": keras.layers.Dense(1, name="seen"), "garment": keras.layers.Dense(3, name="garment")}
    outputs = {name: layer(inputs) for name, layer in outputs.items()}
    made = keras.Model(inputs, outputs if is_dict else list(outputs.values()))
    made.compile("sgd", dict(zip(outputs, loss)) if is_dict else list(loss), jit_compile=False)
    return made


def sequence():
    inputs = keras.Input((5, 4))
    made = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    made.compile("sgd", CLASSES, jit_compile=False)
    return made


def check(model, *data):
    check_data(model, data, "training data", Replicas(Alone(), ["CPU:0"]))


REFUSED = {
    "no y": (functional, (X,), "compiled with a loss needs a y; received x alone as training data; pass y"),
    "no y of a class of one's own": (own, (X,), "needs a y; received x alone"),
    "weights in three columns": (functional, (X, Y, np.ones((20, 3))), "sample_weight .* rows of (3,); .*(20)"),
    "weights of steps where there are none": (own, (X, LABELS, np.ones((20, 5))), "rows of (5,)"),
    "weights of too few steps": (sequence, (np.zeros((20, 5, 4)), np.zeros((20, 5)), np.ones((20, 4))), "(4,)"),
    "one of two weights": (two, (X, (Y, LABELS), (np.ones(20), np.ones((20, 2)))), "sample_weight[1] of the"),
    "three y for two outputs": (two, (X, (Y, LABELS, Y)), "received 3 as y .* 2 outputs; pass a list of 2"),
    "a y without its name": (two, (X, {"seen": Y, "garmet": LABELS}), "without 'garment'; did you mean garmet?"),
    "the same for a dict": (
        lambda: two(is_dict=True), (X, {"seen": Y, "garmet": LABELS}), "['garmet', 'seen'], without 'garment'"
    ),
    "a weight without its name": (
        two, (X, (Y, LABELS), {"sen": np.ones(20)}), "and no output 'sen'; did you mean seen?"
    ),
    "names for an input that has none": (functional, ({"a": X}, Y), "inputs of the model are; .* names ['a']; name"),
    "texts as x": (functional, (np.full((20, 4), "a"), Y), "received texts in x of the training data"),
    "texts as labels": (lambda: functional(CLASSES, 3), (X, LABELS.astype(str)), "received texts in y"),
    "texts as numbers": (functional, (X, np.full((20, 1), "a")), "received texts in y"),
    "an unknown label of one's own": (own, (X, LABELS + 1), "labels must be 0 to 2, .* received 3 in y"),
    "the same in a dict": (lambda: own(True), (X, {"garment": LABELS + 1}), "received 3 in y['garment']"),
    "one-hot rows of one's own": (own, (X, np.eye(3)[LABELS]), "rows of (3,); .*categorical_crossentropy"),
    "another x of one's own": (own, (X[:, :3], LABELS), "must take the data; received x .* rows of (3,): "),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_no_step_could_take_is_refused_in_one_line(case):
    build, data, said = REFUSED[case]
    with pytest.raises(BadInput) as refusal:
        check(build(), *data)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.count(";") == 2, text
    assert all(words in text for words in said.split(".*")), text


TAKEN = {
    "weights of rows": (functional, (X, Y, np.ones(20))),
    "weights in a column": (functional, (X, Y, np.ones((20, 1)))),
    "weights of steps": (sequence, (np.zeros((20, 5, 4)), np.zeros((20, 5)), np.ones((20, 5)))),
    "no y without a loss": (lambda: functional(None), (X,)),
    "one weight for two outputs": (two, (X, (Y, LABELS), np.ones(20))),
    "a weight for one of two outputs": (two, (X, (Y, LABELS), {"seen": np.ones(20)})),
    "no y where there is no loss": (lambda: two(("mse", None), is_dict=True), (X, {"seen": Y})),
    "a class of one's own": (own, (X, LABELS)),
    "a class of one's own that gives a dict": (lambda: own(True), (X, {"garment": LABELS})),
}


@pytest.mark.parametrize("case", sorted(TAKEN))
def test_what_keras_takes_passes(case):
    build, data = TAKEN[case]
    model = build()
    check(model, *data)
    if case not in ("no y without a loss", "no y where there is no loss", "a weight for one of two outputs"):
        x, y, weight = (*data, None, None)[:3]
        model.evaluate(x, y, sample_weight=weight, verbose=0)


ONE_FOR_MORE = {
    "one y for two outputs": (lambda: two(("mse", "mse")), (X, Y), "received 1 as y of .*, and 2 outputs"),
    "a weight of a row for its steps": (
        sequence, (np.zeros((20, 5, 4)), np.zeros((20, 5)), np.ones(20)), r"rows of \(\); .*shape \(20, 5\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(ONE_FOR_MORE))
def test_one_for_more_is_what_the_keras_at_hand_makes_of_it(case):
    build, data, said = ONE_FOR_MORE[case]
    model = build()
    x, y, weight = (*data, None)[:3]
    if hasattr(keras, "ops"):
        with pytest.raises(BadInput, match=said):
            check(model, *data)
    else:
        check(model, *data)
        model.evaluate(x, y, sample_weight=weight, verbose=0)


def test_a_train_step_of_ones_own_makes_of_the_data_what_it_will():
    class Trained(Own):
        def train_step(self, data):
            return {"loss": tf.reduce_sum(data[0])}

    model = Trained()
    model(X[:1])
    model.compile("sgd", CLASSES, jit_compile=False)
    check(model, X[:, :3])


def test_data_to_predict_on_need_no_y():
    check_inputs(own(), X, "data to predict on", Replicas(Alone(), ["CPU:0"]))
    with pytest.raises(BadInput, match="received x of the data to predict on with rows of"):
        check_inputs(own(), X[:, :3], "data to predict on", Replicas(Alone(), ["CPU:0"]))
