"""Ends while Python reads its data, slowly: ``slow_reader.py END``; END: ``stop`` the fit, or an ``error``."""

import sys
import time

import numpy as np
import tensorflow as tf

import hpcdl


class Slow(tf.keras.utils.Sequence):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        time.sleep(0.5 if index > 10 else 0)
        return np.ones((4, 4)), np.ones((4,))


class End(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 9:
            self.model.stop_training = True
            if sys.argv[1] == "error":
                raise ValueError("the cause")


run = hpcdl.init()
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
run.fit(model, Slow(), shuffle=False, verbose=0, callbacks=[End()])
