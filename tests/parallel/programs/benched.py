"""Trains with the settings of a benchmark, writes this rank's weights, and asks for a validation that there is not."""

import sys

import numpy as np
import tensorflow as tf

import hpcdl

folder = sys.argv[1]


class Writes(tf.keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        np.save(f"{folder}/weights-{run.rank}.npy", self.model.get_weights()[0])


run = hpcdl.init(run_dir=folder)
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
x = np.random.default_rng(0).normal(size=(10, 4))
data = {"global_batch_size": 4, "validation_data": (x, x[:, 0])}
history = run.fit(model, x, x[:, 0], **data, epochs=50, callbacks=[Writes()])
print(history.history["val_loss"])
