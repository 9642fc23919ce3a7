"""Plain Keras, without hpcdl: `model.fit` in one process, for comparison; it writes its steps as hpcdl does.

Of hpcdl it takes the network and the data, and the meeting of processes that are measured side by side.

Synopsis::

    HPCDL_BENCH_STEPS=95 python tools/programs/plain_fit.py RUN_DIR fashion_mnist/cnn_dropout
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, List

import tensorflow as tf

from hpcdl.common.bench import BenchSettings
from hpcdl.common.step_times import StepLog
from hpcdl.runtime import workloads

BATCH_SIZE = 128


class Times(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Notes when each step ended, in ways that cost plain Keras nothing."""

    async_safe = True  # Keras 3 may go on with the next step meanwhile
    _supports_tf_logs = True  # Keras 2 need not turn its logs into numbers for this

    def __init__(self) -> None:
        super().__init__()
        self.ends: List[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.ends:
            self.ends.append(time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())


def main(run_dir: str, name: str) -> None:
    """Trains and writes."""
    settings = BenchSettings.from_environ(os.environ)
    workload = workloads.get(name)
    arrays = workload.arrays(workload.load(), "float32")
    num_samples, epochs = settings.cut(len(arrays.x_train), BATCH_SIZE)
    model = workload.build()
    times = Times()
    settings.meet()
    model.fit(
        arrays.x_train[:num_samples],
        arrays.y_train[:num_samples],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[times],
    )
    ends = sorted(times.ends)
    log = StepLog(Path(run_dir), 0, socket.gethostname())
    log.append(0, [end - begin for begin, end in zip(ends, ends[1:])])


if __name__ == "__main__":
    main(*sys.argv[1:])
