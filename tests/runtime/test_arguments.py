"""What Keras' own methods take is taken, or refused in one line that says what to do instead."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import BadInput
from tests.runtime.runs import Twins, make_run

keras = tf.keras
X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = np.arange(20) % 3


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def model(run):
    with run.scope():
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        made.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    return made


def fit(run, model, x=X, y=Y, **arguments):
    return run.fit(model, x, y, global_batch_size=10, **{"verbose": 0, **arguments}).history


class Counting(keras.callbacks.Callback):
    """Counts the batches that it sees."""

    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    on_test_batch_end = on_train_batch_end


def test_one_callback_and_none_are_taken_as_keras_takes_them(run, model):
    alone = Counting()
    fit(run, model, callbacks=alone)
    assert alone.batches == 2
    run.evaluate(model, X, Y, global_batch_size=10, callbacks=alone, verbose=0)
    assert alone.batches == 4
    fit(run, model, callbacks=None)
    run.evaluate(model, X, Y, callbacks=None, verbose=0)


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("fit", {"checkpoint_evry": "1epoch"}, "received checkpoint_evry='1epoch'; did you mean checkpoint_every"),
        ("fit", {"validation_split": 0.1}, "received validation_split=0.1; .*validation_data=(x, y)"),
        ("fit", {"initial_epoch": 3}, "received initial_epoch=3; .*a larger epochs"),
        ("fit", {"gradient_accumulation_steps": 4}, "steps=4; pass it to the optimizer, or under Keras 2 a larger"),
        ("fit", {"something": 1}, "received something=1; leave it out"),
        ("evaluate", {"batch_size": 5}, "received batch_size=5; pass per_replica_batch_size=5"),
        ("evaluate", {"step": 5}, "help(run.evaluate) lists; received step=5; did you mean steps"),
        ("predict", {"callbacks": []}, "help(run.predict) lists; received callbacks=[]; leave it out"),
        ("fit", {"verbose": "loud"}, "verbose must be .*; received 'loud'; pass 0"),
        ("evaluate", {"verbose": 3}, "verbose must be .*; received 3; pass 0"),
        ("predict", {"verbose": None}, "verbose must be .*; received None; pass 0"),
        ("fit", {"checkpoint_every": "1epok"}, "'1epok'; did you mean 1epoch"),
        ("fit", {"checkpoint_every": "10mn"}, "'10mn'; did you mean 10min"),
        ("fit", {"best_by": "most:accuracy"}, "received 'most:accuracy'; pass e.g. val_loss or max:val_dice"),
    ],
)  # fmt: skip
def test_what_a_run_does_not_take_is_one_line_with_the_way_out(method, arguments, said, run, model, tmp_path):
    begin, *rest = said.split(".*")
    data = (X,) if method == "predict" else (X, Y)
    with pytest.raises(BadInput) as refusal:
        getattr(run, method)(model, *data, global_batch_size=10, **arguments)
    text = str(refusal.value)
    assert "\n" not in text
    assert begin in text
    assert all(words in text for words in rest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run, model: run.fit(model, X, Y, 32), "pass per_replica_batch_size=32, or global_batch_size"),
        (lambda run, model: run.fit(model, X, Y, None, 32, 5), "received batch_size=32; pass per_replica"),
        (lambda run, model: run.evaluate(model, X, Y, np.int64(8)), "pass per_replica_batch_size=8"),
        (lambda run, model: run.predict(model, X, 8), "a batch size must say of what; received batch_size=8"),
        (lambda run, model: run.fit(model, X, 8), "received batch_size=8"),
        (
            lambda run, model: run.predict(model, X, "auto"),
            "takes model, x without their names, .*received 'auto'",
        ),
    ],
)
def test_a_bare_batch_size_without_its_name_is_refused_as_one_with_it(call, said, run, model, tmp_path):
    with pytest.raises(BadInput, match=said):
        call(run, model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"per_replica_batch_size": 0}, "per_replica_batch_size must be a whole number >= 1; received 0"),
        ({"global_batch_size": 0}, "global_batch_size must be a whole number >= 1; received 0"),
        (
            {"global_batch_size": 4},
            "here 10; received global_batch_size=4 for 1 replicas; leave the batch sizes",
        ),
        ({"per_replica_batch_size": 4, "global_batch_size": 4}, "pass exactly one of"),
    ],
)
def test_batch_sizes_to_evaluate_and_predict_are_refused_as_those_to_fit(sizes, said, run, model):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)
    for method in (run.fit, run.evaluate, run.predict):
        with pytest.raises(BadInput, match=said):
            method(model, dataset, verbose=0, **sizes)


def test_whole_numbers_of_numpy_are_taken(run, model, tmp_path):
    fit(run, model, epochs=np.int64(1), keep_checkpoints=np.int8(2))
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("seed", ["3", None, -1, 1.5, 2**32])  # NumPy takes no larger one
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(BadInput, match="seed must be a whole number >= 0 and <= 4294967295; received"):
        hpcdl.init(seed=seed)


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="build() of Keras 2 makes the variables")
@pytest.mark.filterwarnings("ignore:.build")
def test_a_class_that_was_only_built_is_refused_and_one_that_was_called_is_taken(run):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.unused = keras.layers.Dense(3, activation="softmax"), keras.layers.Dense(9)

        def call(self, inputs):
            return self.dense(inputs)

    with run.scope():
        built, called = Own(), Own()
        built.build((None, 4))
        called(X[:1])
        for made in (built, called):
            made.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.raises(
        BadInput, match=r"which is not built; .* call it once within run.scope\(\): model\(x\[:1\]\)"
    ):
        fit(run, built)
    fit(run, called)


@pytest.mark.parametrize("verbose", ["auto", 0, 1, 2, True, np.int64(1)])
def test_verbose_is_as_in_keras(verbose, run, model, capsys):
    fit(run, model, verbose=verbose)
    assert bool(capsys.readouterr().out) == (verbose != 0)


def test_data_whose_shapes_do_not_fit_are_refused_wherever_they_are_read(run, model):
    one_hot = np.eye(3)[Y]
    with pytest.raises(BadInput, match="received y of the training data .*take categorical_crossentropy"):
        fit(run, model, y=one_hot)
    with pytest.raises(BadInput, match="received y of the data to evaluate on with rows of"):
        run.evaluate(model, X, one_hot, verbose=0)
    with pytest.raises(BadInput, match="received x of the data to evaluate on with rows of"):
        run.evaluate(model, X[:, :3], Y, verbose=0)
    with pytest.raises(BadInput, match="received x of the data to predict on with rows of"):
        run.predict(model, X[:, :3], verbose=0)


class OtherRows(Twins):
    """Rank 0 of a world of two whose other rank has twice the rows."""

    def gather(self, array):
        return np.stack([array, array + 1])

    def gather_json(self, value):
        return [value, {**value, "num_samples": 40}]


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_ranks_with_other_numbers_of_rows_are_refused(method, tmp_path):
    run = make_run(tmp_path / "run", OtherRows())
    with run.scope():
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        made.compile("sgd", "mse", jit_compile=False)
    data = (X, X[:, :1]) if method == "evaluate" else (X,)
    with pytest.raises(
        BadInput, match=r"rank 1 differs from rank 0 in num_samples \(40, not 20\); start all"
    ):
        getattr(run, method)(made, *data, global_batch_size=10, verbose=0)


@pytest.mark.parametrize("form", ["list", "dict"])
def test_losses_by_name_train_on_outputs_in_any_form(form, run):
    with run.scope():
        inputs = keras.Input((4,))
        seen, garment = (
            keras.layers.Dense(1, name="seen")(inputs),
            keras.layers.Dense(3, name="garment")(inputs),
        )
        made = keras.Model(inputs, [seen, garment] if form == "list" else {"seen": seen, "garment": garment})
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile("sgd", {"garment": loss, "seen": "mse"}, jit_compile=False)
    y = {"seen": X[:, :1], "garment": Y}
    weights = made.get_weights()
    expected = made.fit(X, y, batch_size=20, verbose=0).history  # plain Keras, of the same begin
    made.set_weights(weights)
    found = run.fit(made, X, y, global_batch_size=20, verbose=0).history
    assert found["loss"] == pytest.approx(expected["loss"])
