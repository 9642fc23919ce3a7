"""Changes one weight of rank 1 in the middle of `run.fit`: the guard must stop the run."""

import numpy as np
import tensorflow as tf

import hpcdl

run = hpcdl.init()
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")


class Perturb(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 4 and run.rank == 1:
            kernel, bias = model.get_weights()
            kernel[0, 0] += 1e-7
            model.set_weights([kernel, bias])


x = np.random.default_rng(0).normal(size=(400, 4))
run.fit(model, x, x[:, 0], global_batch_size=2, verbose=0, callbacks=[Perturb()])
