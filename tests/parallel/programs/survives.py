"""Trains a model with everything that a checkpoint must hold: ``survives.py OUT [--die AT] [--signal AT] ...``.

AT is RANK:EPOCH:STEP. Every rank writes OUT-RANK.npz with its weights and history when the training is done.
"""

import argparse
import os
import signal
import time

import numpy as np
import tensorflow as tf

import hpcdl

keras = tf.keras
NUM_FEATURES, NUM_CLASSES, NUM_SAMPLES = 6, 3, 187


def build(dropout, policy):
    inputs = keras.Input((NUM_FEATURES,))
    x = keras.layers.Dense(16, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x) if dropout else x
    x = keras.layers.Dropout(0.3)(x) if dropout else x
    model = keras.Model(inputs, keras.layers.Dense(NUM_CLASSES, dtype=keras.backend.floatx())(x))
    decay = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.95)
    optimizer = keras.optimizers.Adam(decay, use_ema=True)
    if policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], jit_compile=False)
    return model


class At(keras.callbacks.Callback):
    """Does something on one rank at the end of one step, once in the life of the run."""

    def __init__(self, where, mark, action):
        super().__init__()
        self.rank, self.epoch, self.step = map(int, where.split(":"))
        self.mark, self.action, self.now = mark, action, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        here = (self.now, batch) == (self.epoch, self.step)
        if here and rank() == self.rank and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            self.action(self.model)


class Counts(keras.callbacks.Callback):
    """Counts the epochs that it sees."""

    def __init__(self, rank_0_only):
        super().__init__()
        self.rank_0_only, self.seen = rank_0_only, 0

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 100 if self.rank_0_only else 1


def rank():
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("HPCDL_RANK", "0")))


def send_twice(number):
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--die")
    parser.add_argument("--signal")
    parser.add_argument("--stop-training")
    parser.add_argument("--dropout", type=int, default=1)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--ends-in", type=int, help="seconds from the first step until the end of the job")
    parser.add_argument("--late-fit", action="store_true", help="one more, with no time left")
    options = parser.parse_args()
    if options.policy == "float64":
        keras.backend.set_floatx("float64")
    else:
        keras.mixed_precision.set_global_policy(options.policy)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_SAMPLES, NUM_FEATURES))
    y = (x @ rng.normal(size=(NUM_FEATURES, NUM_CLASSES))).argmax(-1)
    run = hpcdl.init()
    with run.scope():
        model = build(options.dropout, options.policy)

    def end(model):
        model.stop_training = True

    actions = {
        "die": lambda model: os.kill(os.getpid(), signal.SIGKILL),
        "signal": lambda model: send_twice(signal.SIGUSR1),
        "stop_training": end,
    }
    acts = [
        At(getattr(options, name), f"{options.out}-{name}", action)
        for name, action in actions.items()
        if getattr(options, name)
    ]
    if options.ends_in is not None:
        os.environ["HPCDL_END_TIME"] = str(int(time.time()) + options.ends_in)
        print("the job ends at", os.environ["HPCDL_END_TIME"])
    counts = [Counts(True), Counts(False)]  # of one class, of which rank 1 calls the second only
    history = run.fit(
        model,
        x,
        y,
        global_batch_size=20,
        epochs=options.epochs,
        validation_data=(x[50:133], y[50:133]),
        callbacks=[
            keras.callbacks.EarlyStopping("loss", patience=10**6, restore_best_weights=True),
            *counts,
            *acts,
        ],
        lr_scaling="linear",
        reference_batch_size=10,
        warmup_epochs=1.5,
        verbose=0,
    )
    weights = np.concatenate([np.asarray(w, np.float64).ravel() for w in model.get_weights()])
    np.savez(f"{options.out}-{run.rank}.npz", weights=weights, counted=counts[1].seen, **history.history)
    if options.late_fit:
        if run.rank == 0:
            os.environ["HPCDL_END_TIME"] = str(int(time.time()) + 5)
        run.fit(model, x, y, global_batch_size=20, verbose=0)


if __name__ == "__main__":
    main()
