"""The clock of a run: how long each step took, for the run's record and for whoever measures it.

Synopsis::

    clock = Clock(StepLog(run_dir, rank, hostname), steps_per_epoch=469)
    model.fit(..., callbacks=[..., clock])
    clock.epoch_seconds
"""

from __future__ import annotations

import time
from typing import Any, List

import tensorflow as tf

from hpcdl.common.saying import say
from hpcdl.common.step_times import StepLog

#: A job's progress is asked for by people; and a line that is not long is read fast.
_WRITE_EVERY_S = 60.0


class Clock(tf.keras.callbacks.Callback):
    """Takes the time of each step: from the end of the one before, or the epoch's begin, to its own end.

    Of several steps in one execution each gets the same part of its time.

    Args:
        log: Where the times go, at each epoch's end and in long ones before. Where they cannot be written, training
            goes on without.
        steps_per_epoch: Of the run, to number the steps.
        write_every_s: After so long they go there without an epoch's end.

    Attributes:
        epoch_seconds: How long the steps of each whole epoch took, without validation.
    """

    def __init__(self, log: StepLog, steps_per_epoch: int, write_every_s: float = _WRITE_EVERY_S) -> None:
        super().__init__()
        self._log, self._steps_per_epoch, self._write_every_s = log, steps_per_epoch, write_every_s
        self._last = self._written_at = 0.0
        self._num_written = 0
        self._step_seconds: List[float] = []
        self._epoch = self._first_step = self._batch = 0
        self.epoch_seconds: List[float] = []
        self._has_failed = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._step_seconds = []
        self._num_written = 0
        self._last = self._written_at = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch = batch
        if not self._step_seconds:
            self._first_step = self._epoch * self._steps_per_epoch + batch  # a run may go on in mid-epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        num_steps = min(batch + 1, self._steps_per_epoch) - self._batch
        self._step_seconds += [(now - self._last) / num_steps] * num_steps
        self._last = now
        if now - self._written_at >= self._write_every_s:
            self._write()
            self._last = self._written_at = time.perf_counter()  # of no step

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if len(self._step_seconds) == self._steps_per_epoch:
            self.epoch_seconds.append(sum(self._step_seconds))
        if self._num_written < len(self._step_seconds):
            self._write()

    def _write(self) -> None:
        first, self._num_written = self._num_written, len(self._step_seconds)
        try:
            self._log.append(self._first_step + first, self._step_seconds[first:])
        except OSError as problem:
            if not self._has_failed:
                say(
                    f"cannot write how long the steps of epoch {self._epoch + 1} took: {problem}; training goes on"
                )
            self._has_failed = True
