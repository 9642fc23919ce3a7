"""What goes on beside the steps: learning rate, sums over the ranks, the guard.

One callback, the first in Keras' list, so that every other callback sees values of the whole world.

Synopsis::

    model.fit(..., callbacks=[following(model, processes, hook, plan, guard_every=100), *callbacks])
"""

from __future__ import annotations

import time
import zlib
from typing import Any, List

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput, Diverged
from hpcdl.common.plan import Plan
from hpcdl.runtime.gradients import Hook
from hpcdl.runtime.steps import metric_variables, moving_averages, shared_variables


class Following(tf.keras.callbacks.Callback):
    """Follows the steps of one `Run.fit`.

    Args:
        processes: The world.
        hook: Of the optimizer; it must have run in the first step.
        plan: Of the run: steps, and the multiplier on the learning rate.
        validation_steps: Steps of a validation; 0 without one.
        guard_every: Steps from one comparison of the ranks' variables to the next.

    Attributes:
        epoch_seconds: How long the steps of each epoch took, without validation.
    """

    def __init__(
        self, processes: Any, hook: Hook, plan: Plan, validation_steps: int, guard_every: int = 100
    ) -> None:
        super().__init__()
        self._processes, self._hook, self._plan = processes, hook, plan
        self._validation_steps, self._guard_every = validation_steps, guard_every
        self._epoch = 0
        self._base_rate = 0.0
        self._started = 0.0
        self.epoch_seconds: List[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        if self._plan.factor != 1:
            self._base_rate = float(self._rate().numpy())

    def on_train_end(self, logs: Any = None) -> None:
        if self._plan.factor != 1:
            self._rate().assign(self._base_rate)  # the user's own again

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        step = self._epoch * self._plan.steps_per_epoch + batch
        if self._plan.factor != 1 and step <= self._plan.warmup_steps:
            self._rate().assign(self._base_rate * self._plan.multiplier(step))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self._epoch * self._plan.steps_per_epoch + batch
        if step == 0 and self._hook.calls == 0:
            raise BadInput(
                "the optimizer must take gradients that hpcdl has averaged; the first step applied none that it saw"
                f" ({type(self.model.optimizer).__name__}); let train_step call"
                " self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))"
            )
        if step == 0 or (step + 1) % self._guard_every == 0:
            self._compare()
        if batch == self._plan.steps_per_epoch - 1:
            self.epoch_seconds.append(time.perf_counter() - self._started)
            self._sum_metrics()
            self._average(moving_averages(self.model))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self._validation_steps - 1:
            self._sum_metrics()

    def _rate(self) -> Any:
        optimizer = self.model.optimizer
        rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
        return rate if isinstance(rate, tf.Variable) else rate.value

    def _sum_metrics(self) -> None:
        """Sums the metric states over the ranks; Keras then works out global values from them by itself."""
        variables = metric_variables(self.model)
        for variable, total in zip(variables, self._processes.sum([v.read_value() for v in variables])):
            variable.assign(total)

    def _average(self, variables: List[Any]) -> None:
        if variables:
            for variable, total in zip(variables, self._processes.sum([v.read_value() for v in variables])):
                variable.assign(total / self._processes.size)

    def _compare(self) -> None:
        """Compares what all ranks must hold alike; moving averages differ until the end of an epoch."""
        averages = {id(v) for v in moving_averages(self.model)}
        variables = [v for v in shared_variables(self.model) if id(v) not in averages]
        digests = np.array(
            [zlib.crc32(np.ascontiguousarray(v.numpy()).tobytes()) for v in variables], np.int64
        )
        of_ranks = self._processes.gather(digests)
        differing = np.argwhere((of_ranks != of_ranks[0]).any(axis=0))
        if differing.size:
            first = int(differing[0, 0])
            ranks = np.flatnonzero(of_ranks[:, first] != of_ranks[0, first]).tolist()
            raise Diverged(
                f"all ranks must hold the same variables; {variables[first].name} of rank(s)"
                f" {', '.join(map(str, ranks))} differs from rank 0's in epoch {self._epoch + 1};"
                f" {differing.size} of {len(variables)} variables differ; change variables only in train_step"
            )
