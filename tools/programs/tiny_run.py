"""Trains a tiny model by `Run.fit`; each rank notes what its main thread works in a step: ``tiny_run.py OUT``.

Time of the thread, not of the clock: where ranks share cores, waiting for a core does not count, nor does the exchange,
which Horovod does in a thread of its own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, List

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.common.records import write_json

STEPS, EPOCHS, BATCH_SIZE = 100, 4, 4


class Work(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Notes the time of the thread at the end of each step, and from an epoch's last step to the next epoch's begin."""

    def __init__(self) -> None:
        super().__init__()
        self.of_steps: List[float] = []
        self.of_epochs: List[float] = []
        self._last = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        now = time.thread_time()
        if epoch > 0:
            self.of_epochs.append(now - self._last)
        self._last = now

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.thread_time()
        if batch > 0:
            self.of_steps.append(now - self._last)
        self._last = now


def main(out: str) -> None:
    """Trains and writes."""
    run = hpcdl.init()
    with run.scope():
        model = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(1)])
        model.compile("sgd", loss="mse", jit_compile=False)
    x = np.zeros((STEPS * BATCH_SIZE * run.num_replicas, 8), "float32")
    work = Work()
    run.fit(model, x, x[:, :1], per_replica_batch_size=BATCH_SIZE, epochs=EPOCHS, callbacks=[work], verbose=0)
    found = {"step_us": 1e6 * median(work.of_steps), "epoch_us": 1e6 * median(work.of_epochs)}
    write_json(Path(out).resolve() / f"rank-{run.rank}.json", found)


if __name__ == "__main__":
    main(*sys.argv[1:])
