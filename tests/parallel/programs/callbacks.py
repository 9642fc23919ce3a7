"""Trains with callbacks of all kinds, each with files of its rank: ``callbacks.py OUT``."""

import json
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.keras_edge import seed_variables

keras = tf.keras


class Notes(keras.callbacks.Callback):
    """Notes in which order it is called, and with which values."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append([self.name, epoch, {k: float(v) for k, v in logs.items()}])


class OnRank0(Notes):
    rank_0_only = True


class Begins(keras.callbacks.Callback):
    """Notes what this rank begins with: weights, and the states of its random generators."""

    def __init__(self, begun):
        super().__init__()
        self.begun = begun

    def on_train_begin(self, logs=None):
        self.begun["weights"] = [w.numpy().tolist() for w in self.model.trainable_variables]
        self.begun["seeds"] = [state.numpy().tolist() for state in seed_variables(self.model)]


class Evaluates(keras.callbacks.Callback):
    """Evaluates at the end of each epoch, by Keras alone and by all ranks."""

    def __init__(self, run, x, y, seen):
        super().__init__()
        self.run, self.data, self.seen = run, (x, y), seen

    def on_epoch_end(self, epoch, logs=None):
        alone = self.model.evaluate(*self.data, verbose=0, return_dict=True)
        together = self.run.evaluate(
            self.model, *self.data, global_batch_size=20, verbose=0, return_dict=True
        )
        validated = {name[4:]: float(value) for name, value in logs.items() if name.startswith("val_")}
        self.seen.append([alone, together, validated])


class OfRank(keras.callbacks.Callback):
    """Notes the loss of this rank's part in each step, before the world's is known, and the rate of each epoch."""

    def __init__(self):
        super().__init__()
        self.losses, self.rates = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def fit_weight(fit, y, loss="mse", **arguments):
    """Trains one weight, in one step an epoch if there are 20 rows, with callbacks that decide."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=False)
    of_rank = OfRank()
    deciding = [
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.05, mode="min"),
        keras.callbacks.EarlyStopping("loss", patience=4, min_delta=0.05, mode="min"),
        keras.callbacks.TerminateOnNaN(),
    ]
    callbacks = [*deciding, of_rank]
    history = fit(
        model, np.ones((len(y), 1), "float32"), y, epochs=20, shuffle=False, callbacks=callbacks, **arguments
    )
    return {"loss": history.history["loss"], "of_rank": of_rank.losses, "rates": of_rank.rates}


#: The first half of the batch, rank 0's, pulls the weight up, the other one further down, and wins.
PULLED = np.repeat(np.array([[1.0], [-3.0]], "float32"), 10, axis=0)


def root_loss(y_true, y_pred):
    """Gives NaN where a target is negative."""
    return tf.reduce_mean(tf.sqrt(y_true) * (1 + y_pred), axis=-1)


def main(out):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6)).astype("float32")
    y = (x.sum(axis=1, keepdims=True)).astype("float32")
    run, begun = hpcdl.init(), {}
    with run.scope():
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(4, activation="tanh"),
                keras.layers.Dropout(0.1),
                keras.layers.Dense(1),
            ]
        )
        if run.is_rank_0:  # as one loads them
            model.set_weights([w + 0.01 for w in model.get_weights()])
            begun["loaded"] = [w.numpy().tolist() for w in model.trainable_variables]
        model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"], jit_compile=False)
    mine, calls, seen = f"{out}/rank-{run.rank}", [], []
    history = run.fit(
        model,
        x,
        y,
        global_batch_size=20,
        epochs=6,
        validation_data=(x[:33], y[:33]),
        verbose=0,
        callbacks=[
            Begins(begun),
            Notes("first", calls),
            keras.callbacks.ModelCheckpoint(f"{mine}-best.keras", save_best_only=True),
            keras.callbacks.TensorBoard(f"{mine}-board"),
            keras.callbacks.CSVLogger(f"{mine}.csv"),
            OnRank0("writer", calls),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10, mode="min"),
            keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.1, mode="min"),
            keras.callbacks.TerminateOnNaN(),
            Notes("last", calls),
            Evaluates(run, x[:33], y[:33], seen),
        ],
    )
    rate = float(model.optimizer.learning_rate)
    with run.scope():
        pulled = fit_weight(run.fit, PULLED, global_batch_size=20, verbose=2)
        negative = np.ones((100, 1), "float32")
        negative[55] = -1.0  # of the third step, in rank 1's part
        ended = fit_weight(run.fit, negative, root_loss, global_batch_size=20)
    with open(f"{mine}.json", "w") as file:
        json.dump(
            {
                "calls": calls,
                "history": history.history,
                "rate": rate,
                "seen": seen,
                "begun": begun,
                "pulled": pulled,
                "ended": ended,
            },
            file,
            default=float,
        )


if __name__ == "__main__":
    main(sys.argv[1])
