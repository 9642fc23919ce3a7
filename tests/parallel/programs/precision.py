"""Trains in float32 and in mixed precision, and writes what came out: ``precision.py HOW OUT``.

HOW: ``plain`` (model.fit in one process) or ``run`` (hpcdl). In float32 a small network sees images; in mixed precision
one of vectors gets data that overflow in one replica's share only.
"""

import contextlib
import os
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.feed import Order

keras = tf.keras
NUM_SAMPLES, BATCH_SIZE = 160, 16
NUM_IMAGES, IMAGES_PER_BATCH = 1600, 32


class After(keras.callbacks.Callback):
    """Keeps a value of the model after each step."""

    def __init__(self, value):
        super().__init__()
        self.values, self._value = [], value

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(self._value(self.model))


def vectors():
    order = Order(NUM_SAMPLES, BATCH_SIZE, seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_SAMPLES, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 1))).astype("float32")
    permutation = order.permutation(0)
    x[order.cut(permutation, 3)[-1]] = 6e4  # in step 3 of the last replica's share
    x[order.cut(permutation, 6)[0]] = 6e4  # in step 6 of the first replica's
    return x, y


def of_vectors(policy):
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(hidden))
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    if policy == "mixed_float16":
        arguments = {"initial_scale": 1024.0, "dynamic_growth_steps": 4}
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, **arguments)
    model.compile(optimizer, loss="mse", jit_compile=False)
    return model


def loss_scale(model):
    optimizer = model.optimizer
    if not hasattr(optimizer, "inner_optimizer"):
        return 1.0
    scale = getattr(optimizer, "dynamic_scale", None)
    return float((optimizer.loss_scale if scale is None else scale).numpy())


def images():
    """Makes smooth images of ten kinds, shifted and with noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, NUM_IMAGES)
    kinds = np.kron(rng.normal(size=(10, 4, 4)), np.ones((4, 4)))
    x = np.stack([np.roll(kinds[k], rng.integers(-2, 3, 2), (0, 1)) for k in y])
    return (x + 0.5 * rng.normal(size=x.shape))[..., np.newaxis].astype("float32"), y


def of_images():
    inputs = keras.Input((16, 16, 1))
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    hidden = keras.layers.MaxPooling2D()(keras.layers.Conv2D(16, 3, activation="relu")(hidden))
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(hidden))
    model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True)
    model.compile(optimizer, loss=loss, jit_compile=False)
    return model


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def train(run, make, data, batch_size, callbacks):
    keras.utils.set_random_seed(0)
    with run.scope() if run else contextlib.nullcontext():
        model = make()
    if run is not None:
        run.fit(model, *data, global_batch_size=batch_size, callbacks=callbacks, verbose=0)
    else:
        rows = Order(len(data[0]), batch_size, seed=0).permutation(0)
        shuffled = [a[rows] for a in data]
        model.fit(*shuffled, batch_size=batch_size, shuffle=False, callbacks=callbacks, verbose=0)
    return model


def main(how, out):
    run = hpcdl.init() if how == "run" else None
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")

    x, y = images()
    losses = After(lambda model: float(model.loss(y[:200], model(x[:200], training=False))))
    steps = After(lambda model: weights(model) if len(steps.values) < 3 else None)
    train(run, of_images, (x, y), IMAGES_PER_BATCH, [losses, steps])
    np.savez(f"{out}/float32-{rank}.npz", losses=losses.values, steps=np.stack(steps.values[:3]))

    for policy in ("mixed_float16", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(policy)
        scales = After(loss_scale)
        model = train(run, lambda p=policy: of_vectors(p), vectors(), BATCH_SIZE, [scales])
        np.savez(f"{out}/{policy}-{rank}.npz", weights=weights(model), scales=scales.values)


if __name__ == "__main__":
    main(*sys.argv[1:])
