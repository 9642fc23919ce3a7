"""Traces of a benchmark: TensorFlow's profiler on each rank, and Horovod's timeline.

``trace/rank-0007/`` in the run's folder is for TensorBoard, ``trace/horovod.json`` for a viewer of Chrome traces.

Synopsis::

    os.environ.update(timeline_environ(run_dir))                # before Horovod starts
    model.fit(..., callbacks=[..., Tracing(trace_folder(run_dir, rank), first_step=15)])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import tensorflow as tf


def timeline_environ(run_dir: Path) -> Dict[str, str]:
    """Makes the folder, and gives the variable that makes Horovod write its timeline there."""
    (run_dir / "trace").mkdir(parents=True, exist_ok=True)
    return {"HOROVOD_TIMELINE": str((run_dir / "trace" / "horovod.json").resolve())}


def trace_folder(run_dir: Path, rank: int) -> Path:
    """Names the folder of a rank's trace; ranks of one node would overwrite each other's."""
    return run_dir / "trace" / f"rank-{rank:04d}"


class Tracing(tf.keras.callbacks.Callback):
    """Lets TensorFlow's profiler watch the steps from one on, to the end.

    Args:
        folder: Where the trace goes.
        first_step: The first that it watches, counted over all epochs.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        super().__init__()
        self._folder, self._steps_left, self._is_on = folder, first_step, False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._steps_left == 0 and not self._is_on:
            self._folder.mkdir(parents=True, exist_ok=True)
            tf.profiler.experimental.start(str(self._folder))
            self._is_on = True
        self._steps_left = max(0, self._steps_left - 1)

    def on_train_end(self, logs: Any = None) -> None:
        if self._is_on:
            tf.profiler.experimental.stop()
            self._is_on = False
