"""Passes a bare batch size on the ranks that are named, and a good one on the others: ``refused.py RANK[,RANK...]``."""

import sys

import numpy as np
import tensorflow as tf

import hpcdl

run = hpcdl.init()
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
is_bad = str(run.rank) in sys.argv[1].split(",")
size = {"batch_size": 4} if is_bad else {"global_batch_size": 4}
run.fit(model, np.zeros((8, 4)), np.zeros((8, 1)), **size, verbose=0)
