"""Changes something on rank 1 in the middle of `run.fit`, where the guard must stop the run: ``perturbed.py WHAT``.

WHAT: ``weight`` (after step 5), ``copy`` (replica 1's of a weight, likewise) or ``average`` (a moving average, while
the epoch's end is validated). Or what rank 1 is told otherwise than rank 0: ``interval`` (of checkpoints). Or what
rank 0 alone meets: ``error`` (as it looks for a checkpoint).
"""

import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.checkpoints import Store
from hpcdl.runtime.keras_edge import plain_variable, seed_variables

IS_KERAS_3 = hasattr(tf.keras, "ops")
what = sys.argv[1]
run = hpcdl.init()
if IS_KERAS_3:
    tf.keras.random.normal((1,))  # Keras makes its own generator, outside of the scope


class Summed(tf.keras.layers.Layer):
    """Adds a sum over the batch to the loss, of which nobody can know that it is no mean; and noise without a seed."""

    def call(self, x):
        self.add_loss(1e-9 * tf.reduce_sum(x))
        return x + tf.keras.random.normal(tf.shape(x), dtype=x.dtype) if IS_KERAS_3 else x


def mean_of_its_own(y, predicted):
    return tf.reduce_mean((y - predicted) ** 2)


with run.scope():
    layers = [tf.keras.Input((4,)), tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(1)]
    if what == "copy":
        layers.insert(1, Summed(name="summed"))
    model = tf.keras.Sequential(layers)
    model.compile("sgd", loss=mean_of_its_own if what == "copy" else "mse")


class Perturb(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if what == "weight" and batch == 4 and run.rank == 1:
            self.perturb(model.trainable_variables[-1])
        if what == "copy" and batch == 4:
            for state in seed_variables(model):
                first, second = (
                    copy.numpy().tolist() for copy in run.distribution.experimental_local_results(state)
                )
                print("replicas draw", "alike" if first == second else "numbers of their own", flush=True)
            variable = plain_variable(model.trainable_variables[-1])
            self.perturb(run.distribution.experimental_local_results(variable)[1])

    def on_test_begin(self, logs=None):
        if what == "average" and run.rank == 1:
            self.perturb(model.non_trainable_variables[0])

    def perturb(self, variable):
        variable.assign(variable + 1e-6)


x = np.random.default_rng(0).normal(size=(400, 4))
data = {"validation_data": (x[:8], x[:8, 0]), "epochs": 2}
if what == "interval" and run.rank == 1:
    data["checkpoint_every"] = "never"
if what == "error":
    Store.newest = None  # a TypeError, on rank 0
run.fit(model, x, x[:, 0], global_batch_size=2, verbose=0, callbacks=[Perturb()], **data)
