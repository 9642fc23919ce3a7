"""The callbacks of one fit, as Keras calls them: hpcdl's own before and after the user's.

Order in each step and at the end of each epoch: `Following` (so that at an epoch's end all others see values of the
whole world) and `Clock`, the user's in their order, Keras' History and, on rank 0, its progress bar; then saving, and
what all ranks agree on. Within an epoch the logs are those of this rank alone: to sum the metrics in each step would
cost an exchange.

Synopsis::

    callbacks = Callbacks(following, clock, users, history, checkpointing, start, model, plan, verbose)
    model.fit(..., callbacks=callbacks)
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Sequence

import tensorflow as tf

from hpcdl.common.plan import Plan
from hpcdl.runtime.checkpointing import Checkpointing
from hpcdl.runtime.clock import Clock
from hpcdl.runtime.following import Following
from hpcdl.runtime.history import History
from hpcdl.runtime.keras_edge import count_steps_from, steps_per_execution


@dataclass(frozen=True)
class Start:
    """Where a fit begins: at its beginning, or where an earlier start left.

    Attributes:
        epoch: First epoch, counted from 0.
        step: Steps of it that are done; callbacks do not see them again.
        at_train_begin: Called when all callbacks have begun.
        going_on: Surrounds the beginning of an epoch of which steps are done: Keras has reset the metrics for it, and
            callbacks do again what they did when it first began.
    """

    epoch: int
    step: int
    at_train_begin: Callable[[], None]
    going_on: Callable[[], ContextManager[None]]


class Callbacks(tf.keras.callbacks.CallbackList):
    """Keras' list of callbacks, which a run has in its hands.

    Args:
        following: hpcdl's own callback.
        clock: Likewise.
        users: The user's callbacks of this rank, with what else stands among them.
        history: Of the run.
        checkpointing: Saves, and knows what all ranks have agreed on.
        start: Where the fit begins.
        model: To be trained.
        plan: Of the run.
        verbose: As in Keras; 0 shows no progress.
    """

    def __init__(
        self,
        following: Following,
        clock: Clock,
        users: Sequence[Any],
        history: History,
        checkpointing: Checkpointing,
        start: Start,
        model: Any,
        plan: Plan,
        verbose: int,
    ) -> None:
        self._following, self._history, self._checkpointing = following, history, checkpointing
        self._start, self._plan = start, plan
        self._epoch = start.epoch
        super().__init__(
            [following, clock, *users, history],
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=plan.epochs_to_run,
            steps=plan.steps_per_epoch,
        )

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        start = self._start
        count_steps_from(self.model, start.epoch * self._plan.steps_per_epoch + start.step)
        start.at_train_begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        with self._start.going_on() if self._is_done(0) else nullcontext():
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._is_done(batch + steps_per_execution(self.model) - 1):
            # Of an execution in which steps are done already, only the rest is taken.
            first = self._start.step if self._is_done(batch) else batch
            super().on_train_batch_begin(first, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._is_done(batch):
            return
        super().on_train_batch_end(batch, logs)
        step = batch + 1
        if self.model.stop_training and step < self._plan.steps_per_epoch:
            if self._checkpointing.ends_later():
                self.model.stop_training = False
            else:
                self._following.end_epoch()
                return
        if self._checkpointing.after_step(self._epoch, step):
            self._following.end_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        # With what the user's callbacks have added: Keras gives these a dict of its own.
        self._checkpointing.after_epoch(epoch, self._history.rows[-1])

    def _is_done(self, batch: int) -> bool:
        return (self._epoch, batch) < (self._start.epoch, self._start.step)
