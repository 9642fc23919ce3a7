"""The learning rate of every step is the user's times the multiplier, whoever else sets the user's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.schedule import warmup_multiplier

keras = tf.keras
NUM_SAMPLES, BATCH_SIZE, REFERENCE, EPOCHS, FACTOR = 60, 12, 3, 3, 4.0
STEPS_PER_EPOCH = NUM_SAMPLES // BATCH_SIZE
WARMUP_STEPS = STEPS_PER_EPOCH
RATE, MOMENTUM = 0.01, 0.9
ROUNDING = 1e-6  # Keras keeps learning rates in float32
GENERATIONS = ["sgd"] if hasattr(keras, "ops") else ["sgd", "legacy-sgd"]


@pytest.fixture(autouse=True)
def _float64():
    compute_in("float64")
    yield
    compute_in("float32")


def compute_in(dtype):
    keras.backend.set_floatx(dtype)
    keras.mixed_precision.set_global_policy(
        dtype
    )  # which Keras 3 makes of the first one that it sees, and keeps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return hpcdl.init(strategy="single", run_dir=str(tmp_path_factory.mktemp("rates") / "run"))


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_SAMPLES, 1))
    return x, 3 * x + rng.normal(size=x.shape)


def made(run, name, rate=RATE, **arguments):
    module = keras.optimizers.legacy if name.startswith("legacy") else keras.optimizers
    kind = module.RMSprop if name.endswith("rmsprop") else module.SGD
    with run.scope():
        return kind(rate, **arguments)


def train(run, optimizer, callbacks=(), warmup_epochs=1):
    """Fits y = w x from w = 1 and gives w."""
    with run.scope():
        model = keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
        )
        model.compile(optimizer, loss="mse", jit_compile=False)
    batch = {"global_batch_size": BATCH_SIZE, "reference_batch_size": REFERENCE}
    schedule = {"epochs": EPOCHS, "lr_scaling": "linear", "warmup_epochs": warmup_epochs}
    run.fit(model, *data(), **batch, **schedule, callbacks=callbacks, shuffle=False, verbose=0)
    return float(model.get_weights()[0][0, 0])


def expected(rate_of_step, momentum=0.0, warmup_steps=WARMUP_STEPS, rho=None):
    """Gives w by the equations: v <- m (lr_t / lr_{t-1}) v - lr_t g, the ratio taken of the multiplier alone.

    With rho g is divided by its root mean square, as RMSprop does.
    """
    x, y = data()
    w, v, before, square = 1.0, 0.0, 1.0, 0.0
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        first = step % STEPS_PER_EPOCH * BATCH_SIZE
        part = slice(first, first + BATCH_SIZE)
        gradient = np.mean(2 * (w * x[part] - y[part]) * x[part])
        if rho is not None:
            square = rho * square + (1 - rho) * gradient**2
            gradient /= np.sqrt(square + 1e-7)
        multiplier = warmup_multiplier(step, warmup_steps, FACTOR)
        v = momentum * (multiplier / before) * v - rate_of_step(step) * multiplier * gradient
        w, before = w + v, multiplier
    return w


@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_warmup_multiplies_each_step_and_corrects_momentum(run, name, momentum):
    optimizer = made(run, name, momentum=momentum)
    assert train(run, optimizer) == pytest.approx(expected(lambda step: RATE, momentum), abs=ROUNDING)


@pytest.mark.parametrize("name", [name.replace("sgd", "rmsprop") for name in GENERATIONS])
def test_warmup_corrects_the_momentum_of_rmsprop_too(run, name):
    w = train(run, made(run, name, rho=0.9, momentum=MOMENTUM, epsilon=1e-7))
    assert w == pytest.approx(expected(lambda step: RATE, MOMENTUM, rho=0.9), abs=ROUNDING)


@pytest.mark.parametrize("name", GENERATIONS)
def test_without_warmup_the_factor_holds_from_the_first_step_on(run, name):
    w = train(run, made(run, name, momentum=MOMENTUM), warmup_epochs=0)
    assert w == pytest.approx(expected(lambda step: RATE, MOMENTUM, warmup_steps=0), abs=ROUNDING)


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_schedule_of_the_users_is_multiplied(run, name):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([4, 9], [0.01, 0.02, 0.005])
    w = train(run, made(run, name, schedule))
    assert w == pytest.approx(expected(lambda step: float(schedule(tf.constant(step)))), abs=ROUNDING)


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_callback_sets_and_sees_the_users_own_rate(run, name):
    seen = []

    def of_epoch(epoch, rate):
        seen.append(rate)
        return rate / 2

    optimizer = made(run, name)
    w = train(run, optimizer, callbacks=[keras.callbacks.LearningRateScheduler(of_epoch)])
    assert seen == pytest.approx([RATE, RATE / 2, RATE / 4])
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(RATE / 8)
    assert w == pytest.approx(expected(lambda step: RATE / 2 ** (1 + step // STEPS_PER_EPOCH)), abs=ROUNDING)


def test_the_optimizer_is_the_plain_one_afterwards(run):
    optimizer = made(run, "sgd", momentum=MOMENTUM)
    train(run, optimizer)
    assert type(optimizer) is keras.optimizers.SGD
    assert optimizer.get_config()["learning_rate"] == pytest.approx(RATE)
