"""Trains with callbacks of all kinds, each with files of its rank: ``callbacks.py OUT``."""

import importlib.util
import json
import sys

import numpy as np
import tensorflow as tf

import hpcdl

keras = tf.keras
HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None  # TensorFlow 2.21 comes without it


class Notes(keras.callbacks.Callback):
    """Notes in which order it is called, and with which values."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append([self.name, epoch, {k: float(v) for k, v in logs.items()}])


class OnRank0(Notes):
    rank_0_only = True


def main(out):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype("float32")
    y = (x.sum(axis=1, keepdims=True)).astype("float32")
    run = hpcdl.init()
    with run.scope():
        model = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"], jit_compile=False)
    mine, calls = f"{out}/rank-{run.rank}", []
    history = run.fit(
        model,
        x,
        y,
        global_batch_size=20,
        epochs=6,
        validation_data=(x[:33], y[:33]),
        verbose=0,
        callbacks=[
            Notes("first", calls),
            keras.callbacks.ModelCheckpoint(f"{mine}-best.keras", save_best_only=True),
            *([keras.callbacks.TensorBoard(f"{mine}-board")] if HAS_TENSORBOARD else []),
            keras.callbacks.CSVLogger(f"{mine}.csv"),
            OnRank0("writer", calls),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10, mode="min"),
            keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.1, mode="min"),
            keras.callbacks.TerminateOnNaN(),
            Notes("last", calls),
        ],
    )
    rate = float(model.optimizer.learning_rate)
    with open(f"{mine}.json", "w") as file:
        json.dump({"calls": calls, "history": history.history, "rate": rate}, file, default=float)


if __name__ == "__main__":
    main(sys.argv[1])
