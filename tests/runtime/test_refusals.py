"""What cannot be trained exactly is refused in one line, before a step is taken or a file is written."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.runtime import following
from hpcdl.runtime.checks import check_compiled
from hpcdl.runtime.execution import Execution
from tests.runtime.runs import Twins, TwoRanks, make_run

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


def wrapped_within():
    made = wrapped()
    made.optimizer = keras.mixed_precision.LossScaleOptimizer(made.optimizer)
    return made


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
    "one within another": (wrapped_within, (X, Y), GLOBAL, "DistributedOptimizer"),
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


if hasattr(keras.optimizers, "MultiOptimizer"):

    def of_two_optimizers():
        of_names = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(), {"dense/.*": keras.optimizers.Adam()}
        )
        return model(optimizer=keras.optimizers.MultiOptimizer(of_names))

    CASES["several optimizers in one"] = (of_two_optimizers, (X, Y), GLOBAL, "received a MultiOptimizer")


if hasattr(keras, "ops"):
    MIXING = {
        "circle": (LOSSES.Circle, "received Circle, which"),
        "an overlap of a whole batch": (LOSSES.Dice, "received Dice, which"),
        "overlaps over the batch": (lambda: LOSSES.Tversky(axis=(0, 1)), "such as axis=(1, 2, 3)"),
        "a function's name": (lambda: "dice", "received dice, which"),
    }
    for name, (loss, words) in MIXING.items():
        CASES[f"a loss that mixes samples: {name}"] = (
            lambda loss=loss: model(loss=loss()),
            (X, Y),
            GLOBAL,
            words,
        )


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


@pytest.mark.parametrize("make", [keras.optimizers.SGD, lambda: "sgd"])
def test_an_optimizer_made_outside_the_scope_is_refused_in_every_strategy(make, run, tmp_path):
    with run.scope():
        made = uncompiled()
    made.compile(make(), loss="mse", jit_compile=False)
    with pytest.raises(
        BadInput, match="the optimizer must be made inside.* received SGD, which was made outside"
    ):
        run.fit(made, X, Y, **GLOBAL)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 compiles by XLA only where it is told to")
def test_what_keras_compiles_by_itself_is_not_refused_but_said(run, monkeypatch):
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: True)  # as on a GPU
    with run.scope():
        made = model(jit_compile="auto")
    assert made.jit_compile is True
    execution = Execution(made, run._replicas)
    assert execution.overrides == {"_jit_compile": False}
    assert "jit_compile" in execution.notices[0]


@pytest.mark.skipif(
    not hasattr(keras.Model, "autotune_steps_per_execution"), reason="this Keras does not tune that number"
)
def test_a_number_of_steps_per_execution_that_keras_would_tune_stays_as_it_is(run):
    with run.scope():
        made = model(steps_per_execution="auto")
    execution = Execution(made, run._replicas)
    assert execution.overrides == {"_autotune_steps_per_execution": False}
    assert "steps_per_execution='auto'" in execution.notices[0]


class TwoOptimizers(keras.Model):
    """Updates one of its layers by an optimizer of its own, as networks that compete do."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        variables = self.trainable_variables
        pairs = list(zip(tape.gradient(loss, variables), variables))
        self.optimizer.apply_gradients(pairs[:2])
        self.other[0].apply_gradients(pairs[2:])
        return {"loss": loss}


def test_the_steps_since_the_last_comparison_are_compared_before_the_model_is_saved(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(following, "compare", lambda replicas, variables, when: compared.append(when))
    run = make_run(tmp_path / "run")
    with run.scope():
        made = model()
    run.fit(made, X, Y, **{**GLOBAL, "epochs": 2}, verbose=0)
    steps = 2 * -(-len(X) // GLOBAL["global_batch_size"])
    assert compared == ["step 1", "epoch 1", "epoch 2", f"step {steps}"]


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_second_optimizer_is_refused_in_the_first_step(is_eager, tmp_path):
    run = make_run(tmp_path / "run")
    with run.scope():
        inputs = keras.Input((4,))
        made = TwoOptimizers(inputs, keras.layers.Dense(1)(keras.layers.Dense(3)(inputs)))
        made.compile("sgd", loss="mse", jit_compile=False, run_eagerly=is_eager)
        made.other = [keras.optimizers.Adam()]
        made.other[0].build(made.trainable_variables[2:])
    with pytest.raises(BadInput, match=r"by one optimizer.* received updates by another one .*\(Adam\); let"):
        run.fit(made, X, Y, **GLOBAL, verbose=0)


def test_a_loss_of_the_users_may_have_any_name(run):
    def dice(y, predicted):
        return tf.reduce_mean((y - predicted) ** 2, axis=-1)

    with run.scope():
        made = model(loss=dice)
    check_compiled(made, run._replicas)


class Own(keras.Model):
    """Reduces its loss by itself."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_sum((y - y_pred) ** 2)


class OwnStep(Own):
    """Takes its gradients by itself, and clips them."""

    clip = None

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            # The gradient of what is clipped here is no clipped gradient.
            loss = tf.reduce_mean((tf.clip_by_value(self(x, training=True), -9, 9) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        if self.clip is not None:
            gradients = self.clip(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {"loss": loss}


def fit_own(kind, clip, run_dir, processes=None):
    run = make_run(run_dir, processes)
    with run.scope():
        inputs = keras.Input((4,))
        made = kind(inputs, keras.layers.Dense(1)(inputs))
        made.compile("sgd", loss="mse", jit_compile=False)
    made.clip = clip
    run.fit(made, X, Y, **GLOBAL, verbose=0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Own, "compute_loss of Own; a sum there"),
        (OwnStep, "train_step of OwnStep; a sum there"),
        (
            OwnStep,
            "the number of samples; gradients in train_step are those of one replica: clip them in the",
        ),
    ],
)
def test_what_a_model_reduces_by_itself_is_said_to_be_taken_as_a_mean(kind, said, tmp_path, capsys):
    fit_own(kind, None, tmp_path / "alone")
    assert "taken as the mean" not in capsys.readouterr().err
    fit_own(kind, None, tmp_path / "two", Twins())
    text = capsys.readouterr().err
    assert text.count("taken as the mean of its samples") == 1
    assert said in text
    assert ("clip" in text) == (kind is OwnStep)


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        (lambda gradients: tf.clip_by_global_norm(gradients, 1.0)[0], "clip_by_global_norm"),
        (lambda gradients: [tf.clip_by_norm(gradient, 1.0) for gradient in gradients], "clip_by_norm"),
        (lambda gradients: [tf.clip_by_value(gradient, -1, 1) for gradient in gradients], "clip_by_value"),
    ],
)
def test_gradients_that_are_clipped_before_they_are_averaged_are_refused(clip, name, tmp_path):
    fit_own(OwnStep, clip, tmp_path / "alone")
    with pytest.raises(BadInput, match=rf"clipped in train_step \({name}\); give the optimizer clipnorm"):
        fit_own(OwnStep, clip, tmp_path / "two", Twins())


def test_a_strategy_that_is_not_known_is_refused_with_the_near_name():
    with pytest.raises(BadInput, match="mirrored"):
        hpcdl.init(strategy="miror")


def test_another_backend_of_keras_is_refused_before_it_is_loaded(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(BadInput, match="received KERAS_BACKEND=jax; unset it"):
        hpcdl.init()
