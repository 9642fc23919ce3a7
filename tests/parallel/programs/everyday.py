"""A day's use of one ready network: callbacks, a death and a resume, a saved model: ``everyday.py OUT``.

Rank 1 is killed once in mid-epoch. Every rank writes what came out of that run and of a second one that nothing broke.
"""

import os
import signal
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime import workloads

keras = tf.keras


class Dies(keras.callbacks.Callback):
    """Kills rank 1 in the second epoch, once."""

    def __init__(self, run, mark):
        super().__init__()
        self.run, self.mark, self.epoch = run, mark, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.run.rank == 1 and (self.epoch, batch) == (1, 2) and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def train(run, callbacks):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(90, 28, 28, 1)).astype("float32"), rng.integers(0, 10, 90)
    keras.utils.set_random_seed(0)
    with run.scope():
        model = workloads.get("fashion_mnist/fc64").build()
    history = run.fit(
        model,
        x,
        y,
        global_batch_size=20,
        epochs=6,
        validation_data=(x[:33], y[:33]),
        callbacks=[keras.callbacks.EarlyStopping("loss", patience=1, min_delta=100, mode="min"), *callbacks],
        verbose=0,
    ).history
    weights = np.concatenate([np.asarray(w).ravel() for w in model.get_weights()])
    return model, x, {"weights": weights, **history}


def main(out):
    run = hpcdl.init(run_dir=f"{out}/run")
    mine = f"{out}/rank-{run.rank}"
    writers = [
        keras.callbacks.CSVLogger(f"{mine}.csv"),
        keras.callbacks.ModelCheckpoint(f"{mine}-each.keras"),
    ]
    model, x, broken = train(run, [*writers, Dies(run, f"{out}/died")])
    run.save(model, f"{out}/saved.keras")
    if run.rank == 0:
        plain = keras.models.load_model(f"{out}/saved.keras")
        broken["off"] = np.abs(plain.predict(x, verbose=0) - model.predict(x, verbose=0)).max()
    np.savez(f"{mine}-broken.npz", **broken)
    _, _, whole = train(run, [])
    np.savez(f"{mine}-whole.npz", **whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
