"""What reads slowly, and ends a fit on it; for ``programs/slow_reader.py``, which must hold no function of its own."""

import sys
import time

import numpy as np
import tensorflow as tf


def slowly():
    yield 0.0
    while True:
        time.sleep(0.5)
        yield 1.0


class Slow(tf.keras.utils.Sequence):
    """Steps of ones, of which those from the eleventh on take half a second each."""

    def __init__(self, num_steps=100):
        self._num_steps = num_steps

    def __len__(self):
        return self._num_steps

    def __getitem__(self, index):
        time.sleep(0.5 if index > 10 else 0)
        return np.ones((4, 4)), np.ones((4,))


class End(tf.keras.callbacks.Callback):
    def __init__(self, end):
        super().__init__()
        self._end = end

    def on_train_batch_end(self, batch, logs=None):
        if batch == 9:
            self.model.stop_training = True
            if self._end == "error":
                raise ValueError("the cause")

    def on_test_batch_end(self, batch, logs=None):
        if batch == 9:
            sys.exit(3)
