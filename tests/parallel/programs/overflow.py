"""Trains in mixed_float16 on data that overflow in one replica's share only: ``overflow.py HOW POLICY OUT``."""

import contextlib
import os
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.feed import Order

keras = tf.keras
NUM_SAMPLES, BATCH_SIZE = 160, 16
ORDER = Order(NUM_SAMPLES, BATCH_SIZE, seed=0)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_SAMPLES, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 1))).astype("float32")
    x[ORDER.batch(0, 3)[-1]] = 6e4  # in step 3 of the last replica's share
    x[ORDER.batch(0, 6)[0]] = 6e4  # in step 6 of the first replica's
    return x, y


def build():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(hidden))
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        arguments = {"initial_scale": 1024.0, "dynamic_growth_steps": 4}
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, **arguments)
    model.compile(optimizer, loss="mse", jit_compile=False)
    return model


class Scales(keras.callbacks.Callback):
    """Keeps the loss scale after each step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        if hasattr(optimizer, "inner_optimizer"):
            scale = getattr(optimizer, "dynamic_scale", None)
            self.values.append(float((optimizer.loss_scale if scale is None else scale).numpy()))


def main(how, policy, out):
    keras.mixed_precision.set_global_policy(policy)
    run = hpcdl.init() if how == "run" else None
    keras.utils.set_random_seed(0)
    with run.scope() if run else contextlib.nullcontext():
        model = build()
    scales = Scales()
    x, y = data()
    if run is not None:
        run.fit(model, x, y, global_batch_size=BATCH_SIZE, callbacks=[scales], verbose=0)
    else:
        rows = ORDER.permutation(0)
        model.fit(x[rows], y[rows], batch_size=BATCH_SIZE, shuffle=False, callbacks=[scales], verbose=0)
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    np.savez(f"{out}/{policy}-{rank}.npz", weights=weights, scales=scales.values)


if __name__ == "__main__":
    main(*sys.argv[1:])
