"""Trains by Horovod's own optimizer in model.fit, then asks the guard: under Keras 3 the ranks have drifted apart."""

import horovod.tensorflow.keras as hvd
import numpy as np
import tensorflow as tf

from hpcdl.runtime.guard import compare
from hpcdl.runtime.keras_edge import plain_variable
from hpcdl.runtime.processes import HorovodProcesses
from hpcdl.runtime.replicas import Replicas

hvd.init()
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
model.compile(hvd.DistributedOptimizer(tf.keras.optimizers.SGD(0.1)), loss="mse", jit_compile=False)
x = np.random.default_rng(hvd.rank()).normal(size=(40, 4))
model.fit(x, x[:, 0], batch_size=4, verbose=0)
weights = [plain_variable(v) for v in model.trainable_variables]  # its wrapper cannot list the optimizer's
compare(Replicas(HorovodProcesses(), ["CPU:0"]), weights, when="10 steps")
