"""Changes something on rank 1 in the middle of `run.fit`, where the guard must stop the run: ``perturbed.py WHAT``.

WHAT: ``weight`` (after step 5) or ``average`` (a moving average, while the epoch's end is validated).
"""

import sys

import numpy as np
import tensorflow as tf

import hpcdl

what = sys.argv[1]
run = hpcdl.init()
with run.scope():
    layers = [tf.keras.Input((4,)), tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(1)]
    model = tf.keras.Sequential(layers)
    model.compile("sgd", loss="mse")


class Perturb(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if what == "weight" and batch == 4 and run.rank == 1:
            self.perturb(model.trainable_variables[-1])

    def on_test_begin(self, logs=None):
        if what == "average" and run.rank == 1:
            self.perturb(model.non_trainable_variables[0])

    def perturb(self, variable):
        variable.assign(variable + 1e-6)


x = np.random.default_rng(0).normal(size=(400, 4))
data = {"validation_data": (x[:8], x[:8, 0]), "epochs": 2}
run.fit(model, x, x[:, 0], global_batch_size=2, verbose=0, callbacks=[Perturb()], **data)
