"""Trains on batches that differ between ranks: ``unseeded.py [later]``: the first one, or the second and later ones."""

import sys

import numpy as np
import tensorflow as tf

import hpcdl

run = hpcdl.init()
rows = tf.data.Dataset.from_tensor_slices((np.arange(80.0).reshape(20, 4), np.zeros((20, 1))))
if run.is_rank_0:
    tf.random.normal([1])  # a shuffle without a seed takes the next number of TensorFlow's
unseeded = rows.shuffle(20).batch(4)
if sys.argv[1:] == ["later"]:
    unseeded = rows.take(4).concatenate(rows.skip(4).shuffle(16, seed=run.rank)).batch(4)
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
run.fit(model, unseeded, verbose=0)
