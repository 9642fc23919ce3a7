"""Trains, and is refused: ``refused.py WHAT``.

WHAT: ``0``, ``1`` or ``0,1`` (a bare batch size on these ranks), ``later`` (on all, in a second fit), ``step``
(gradients that nobody averages) or ``none`` (nothing is wrong).
"""

import sys

import numpy as np
import tensorflow as tf

import hpcdl


class Own(tf.keras.Sequential):
    """Descends by hand."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        for variable, gradient in zip(
            self.trainable_variables, tape.gradient(loss, self.trainable_variables)
        ):
            variable.assign_sub(0.1 * gradient)
        return {"loss": loss}


what = sys.argv[1]
run = hpcdl.init()
with run.scope():
    layers = [tf.keras.Input((4,)), tf.keras.layers.Dense(1)]
    model = Own(layers) if what == "step" else tf.keras.Sequential(layers)
    model.compile("sgd", loss="mse", jit_compile=False)
good, bad = {"global_batch_size": 4}, {"batch_size": 4}
size = bad if str(run.rank) in what.split(",") else good
run.fit(model, np.zeros((8, 4)), np.zeros((8, 1)), **size, verbose=0)
if what == "later":
    run.fit(model, np.zeros((8, 4)), np.zeros((8, 1)), **bad, verbose=0)
