"""Trains a network with one large gradient, exchanged alone, and many small ones, twice: ``repeatable.py OUT``.

Each rank writes a digest of the weights of each time.
"""

import sys
import zlib

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.processes import EXCHANGE_BYTES


def train(run):
    tf.keras.utils.set_random_seed(0)
    with run.scope():
        layers = [tf.keras.layers.Dense(width, activation="tanh") for width in (1100, 1000, 30, 20, 10)]
        model = tf.keras.Sequential([tf.keras.Input((8,)), *layers, tf.keras.layers.Dense(1)])
        model.compile("adam", loss="mse")
    assert layers[1].kernel.shape.num_elements() * 4 > EXCHANGE_BYTES
    x = np.random.default_rng(0).normal(size=(160, 8)).astype("float32")
    history = run.fit(model, x, x.sum(axis=1), per_replica_batch_size=4, epochs=4, verbose=0).history
    digest = 0
    for weights in model.get_weights():
        digest = zlib.crc32(np.ascontiguousarray(weights).tobytes(), digest)
    return f"{digest} {history['loss']}"


def main(out):
    run = hpcdl.init()
    with open(f"{out}/digests-{run.rank}", "w") as file:
        file.write("\n".join(train(run) for _ in range(2)))


if __name__ == "__main__":
    main(*sys.argv[1:])
