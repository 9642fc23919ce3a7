"""Trains small cases in one way and writes what came out: ``equality.py HOW CASE[,CASE...] OUT``.

HOW: ``plain`` (model.fit in one process on the whole global batch), ``run`` (hpcdl, in the world that the launcher
made) or ``wrapped`` (Horovod's own DistributedOptimizer with model.fit on each rank's share).
"""

import contextlib
import os
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.feed import Order

keras = tf.keras
NUM_FEATURES, GLOBAL_BATCH_SIZE, EPOCHS = 6, 20, 2
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "clipped": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.05),
}
#: Optimizer, number of samples (187: an epoch's last batch has 7; 181: it has 1, fewer than ranks).
CASES = {
    "sgd": ("sgd", 200),
    "adam": ("adam", 200),
    "clipped": ("clipped", 200),
    "adam-uneven": ("adam", 187),
    "sgd-tiny": ("sgd", 181),
}


def build(optimizer):
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss=loss, metrics=["accuracy"], jit_compile=False)
    return model


def train_plain(model, x, y, test, order):
    """Trains by plain Keras on the global batches of the order."""
    return in_epochs(
        model, x, y, order, slice(None), validation_data=test, validation_batch_size=GLOBAL_BATCH_SIZE
    )


def in_epochs(model, x, y, order, share, **arguments):
    histories = []
    for epoch in range(EPOCHS):
        batches = [order.batch(epoch, step)[share] for step in range(order.steps_per_epoch)]
        rows = np.concatenate(batches)
        fitted = model.fit(
            x[rows], y[rows], batch_size=len(batches[0]), shuffle=False, verbose=0, **arguments
        )
        histories.append(fitted.history)
    return {name: np.concatenate([h[name] for h in histories]) for name in histories[0]}


def train_wrapped(model, x, y, test, order):
    """Trains as Horovod's documentation says: its optimizer, and each rank its share of a batch."""
    import horovod.tensorflow.keras as hvd

    hvd.init()
    size = GLOBAL_BATCH_SIZE // hvd.size()
    share = slice(hvd.rank() * size, (hvd.rank() + 1) * size)
    model.compile(hvd.DistributedOptimizer(model.optimizer), loss=model.loss, jit_compile=False)
    return in_epochs(model, x, y, order, share)


def main(how, cases, out):
    keras.backend.set_floatx("float64")
    run = hpcdl.init() if how == "run" else None
    for case in cases.split(","):
        optimizer, num_samples = CASES[case]
        rng = np.random.default_rng(0)
        x = rng.normal(size=(num_samples, NUM_FEATURES))
        y = (x @ rng.normal(size=(NUM_FEATURES, 3))).argmax(-1)
        test = x[50:133], y[50:133]
        keras.utils.set_random_seed(0)
        with run.scope() if run else contextlib.nullcontext():
            model = build(optimizer)
        if run is not None:
            batch = {"global_batch_size": GLOBAL_BATCH_SIZE}
            history = run.fit(model, x, y, **batch, epochs=EPOCHS, validation_data=test, verbose=0).history
        else:
            train = {"plain": train_plain, "wrapped": train_wrapped}[how]
            history = train(model, x, y, test, Order(num_samples, GLOBAL_BATCH_SIZE, seed=0))
        weights = np.concatenate([w.ravel() for w in model.get_weights()])
        rank = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("HPCDL_RANK", "0"))
        np.savez(f"{out}/{case}-{rank}.npz", weights=weights, **history)


if __name__ == "__main__":
    main(*sys.argv[1:])
