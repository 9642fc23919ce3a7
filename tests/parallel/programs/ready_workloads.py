"""Trains ready networks for three steps on a few made-up rows of the right form: ``ready_workloads.py OUT``.

In float64, and networks without randomness of their own (dropout), so that worlds can be compared.
"""

import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.common import workloads as table
from hpcdl.runtime import workloads

NAMES = ("boston_housing/regression", "imdb/embedding", "synthetic/transformer")


def rows_of(workload):
    random = np.random.default_rng(0)
    shape, dtype = (10, *workload.network.input_shape), workload.network.input_dtype
    x = random.integers(0, 200, shape).astype(dtype) if dtype else random.normal(size=shape)
    return x, random.normal(size=(10, 1)) if "regression" in workload.facts.name else random.integers(
        0, 2, 10
    )


def main(out):
    tf.keras.backend.set_floatx("float64")
    run = hpcdl.init()
    for name in NAMES:
        assert name in table.names()
        workload = workloads.get(name)
        tf.keras.utils.set_random_seed(0)
        with run.scope():
            model = workload.build()
        x, y = rows_of(workload)
        history = run.fit(model, x, y, global_batch_size=4, verbose=0).history
        weights = np.concatenate([w.ravel() for w in model.get_weights()])
        np.savez(f"{out}/{name.replace('/', '-')}-{run.rank}.npz", weights=weights, **history)
        tf.keras.backend.clear_session()


if __name__ == "__main__":
    main(*sys.argv[1:])
