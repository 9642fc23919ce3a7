"""Starts ranks that differ in the rate of a dropout layer: no shape and no number of steps tells them apart."""

import numpy as np
import tensorflow as tf

import hpcdl

run = hpcdl.init()
layers = tf.keras.layers
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), layers.Dropout(0.5 + 0.1 * run.rank), layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
run.fit(model, np.zeros((8, 4)), np.zeros((8, 1)), global_batch_size=4, verbose=0)
