"""Trains on batches that differ between ranks: ``unseeded.py [later|tests]``: the first one, or the second and later
ones; or takes such data for validation, evaluation and prediction, and goes on.
"""

import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import HpcdlError

run = hpcdl.init()
rows = tf.data.Dataset.from_tensor_slices((np.arange(80.0).reshape(20, 4), np.zeros((20, 1))))
if run.is_rank_0:
    tf.random.normal([1])  # a shuffle without a seed takes the next number of TensorFlow's
unseeded = rows.shuffle(20).batch(4)
if sys.argv[1:]:
    unseeded = rows.take(4).concatenate(rows.skip(4).shuffle(16, seed=run.rank)).batch(4)
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
if sys.argv[1:] != ["tests"]:
    run.fit(model, unseeded, verbose=0)
    sys.exit()
for name, act in {
    "fit": lambda: run.fit(model, rows.batch(4), epochs=2, validation_data=unseeded, verbose=0),
    "evaluate": lambda: run.evaluate(model, unseeded, verbose=0),
    "predict": lambda: run.predict(model, unseeded.map(lambda x, y: x), verbose=0),
    "predict arrays": lambda: run.predict(model, np.full((20, 4), float(run.rank)), verbose=0),
}.items():
    try:
        act()
    except HpcdlError as problem:
        print(f"{name} stopped: {problem}")
# A new order each time, the same on all ranks, however far one of them would read ahead.
alike = rows.shuffle(20, seed=3).batch(4)
for steps in (None, 2, 1):
    run.fit(model, rows.batch(4), epochs=8, validation_data=alike, validation_steps=steps, verbose=0)
