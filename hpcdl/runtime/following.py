"""What goes on beside the steps: sums over the replicas, and the guard.

One callback, the first in Keras' list, so that every other callback sees values of the whole world.

Synopsis::

    model.fit(..., callbacks=[Following(replicas, logs, hook, plan, validation_steps), *callbacks])
"""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.plan import Plan
from hpcdl.common.saying import say
from hpcdl.runtime.gradients import Hook
from hpcdl.runtime.guard import compare
from hpcdl.runtime.keras_edge import (
    has_own_train_step,
    metric_variables,
    non_trainable_variables,
    synchronized_variables,
)
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.step_logs import StepLogs


class MetricSums(tf.keras.callbacks.Callback):
    """Makes the metrics of an evaluation those of all replicas, in its last step.

    Args:
        replicas: Of the run.
        logs: Of the steps.
        test_steps: Steps of an evaluation; 0 without one.
    """

    def __init__(self, replicas: Replicas, logs: StepLogs, test_steps: int) -> None:
        super().__init__()
        self._replicas, self._logs, self._test_steps = replicas, logs, test_steps
        self._is_summed = False

    def on_test_begin(self, logs: Any = None) -> None:
        self._logs.kind, self._is_summed = "test", False

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch >= self._test_steps - 1:
            self._sum_metrics()
            self._is_summed = True

    def on_test_end(self, logs: Any = None) -> None:
        if not self._is_summed and self._replicas.num_replicas > 1:
            raise BadInput(
                "an evaluation by several replicas takes all its batches; received stop_evaluating, from a callback;"
                " leave it out, or evaluate on fewer data (validation_steps)"
            )

    def _sum_metrics(self) -> None:
        """Sums the metric states over the replicas; Keras then works out global values from them by itself."""
        variables = metric_variables(self.model)
        for variable, total in zip(variables, self._replicas.sums(variables)):
            # Keras sums the copies in this process: one holds the total.
            for r, copy in enumerate(self._replicas.copies(variable)):
                copy.assign(total if r == 0 else tf.zeros_like(total))


class Following(MetricSums):
    """Follows the steps of one `Run.fit`.

    Args:
        replicas: Of the run.
        logs: Of the steps.
        hook: Of the optimizer; it must have run in the first step.
        plan: Of the run.
        validation_steps: Steps of a validation; 0 without one.
        guard_every: Steps from one comparison of the ranks' variables to the next, which also ends the training; None
            compares nothing.
    """

    def __init__(
        self,
        replicas: Replicas,
        logs: StepLogs,
        hook: Hook,
        plan: Plan,
        validation_steps: int,
        guard_every: Optional[int] = 100,
    ) -> None:
        super().__init__(replicas, logs, validation_steps)
        self._hook, self._plan, self._guard_every = hook, plan, guard_every
        self._epoch = 0
        self._steps_seen: Optional[int] = None
        self._steps_compared: Optional[int] = None

    def on_test_end(self, logs: Any = None) -> None:
        super().on_test_end(logs)
        self._logs.kind = "train"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With several steps per execution Keras 3 may number the last one beyond the epoch's end.
        in_epoch = min(batch + 1, self._plan.steps_per_epoch)
        steps = self._epoch * self._plan.steps_per_epoch + in_epoch
        before = self._steps_seen
        is_first = before is None
        if is_first and self._hook.calls == 0:
            raise BadInput(
                "the optimizer must take gradients that hpcdl has averaged; the first step applied none that it saw"
                f" ({type(self.model.optimizer).__name__}); let train_step call"
                " self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))"
            )
        if self._hook.strangers:
            raise BadInput(
                "a model is trained by one optimizer, the one of compile(), whose gradients hpcdl averages; received"
                f" updates by another one in its train_step ({', '.join(sorted(self._hook.strangers))}); let"
                " self.optimizer update all variables, or write the loop yourself with run.average_gradients"
            )
        if self._hook.clipped:
            raise BadInput(
                "gradients are clipped when they have been averaged over the replicas, in the optimizer; received"
                f" those of one replica, clipped in train_step ({', '.join(sorted(self._hook.clipped))}); give the"
                " optimizer clipnorm, global_clipnorm or clipvalue"
            )
        if is_first and self._hook.taken_as_means and self._replicas.processes.rank == 0:
            of_replica = "; gradients in train_step are those of one replica: clip them in the optimizer"
            say(
                "one number for a whole batch is taken as the mean of its samples, since nothing else is known of it:"
                f" {', '.join(self._hook.taken_as_means)}; a sum there would weigh less on more replicas: divide it by"
                f" the number of samples{of_replica if has_own_train_step(self.model) else ''}"
            )
        every = self._guard_every
        is_due = before is None or (every is not None and steps // every > before // every)
        self._steps_seen = steps
        if is_due:
            self._compare_trained()
        if in_epoch == self._plan.steps_per_epoch:
            self.end_epoch()

    def end_epoch(self) -> None:
        """Makes metrics and moving averages those of all replicas; a collective."""
        self._sum_metrics()
        self._replicas.average(non_trainable_variables(self.model))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._guard_every is not None:
            compare(self._replicas, non_trainable_variables(self.model), f"epoch {epoch + 1}")

    def on_train_end(self, logs: Any = None) -> None:
        # What the last steps did would be saved as the model.
        if self._steps_seen != self._steps_compared:
            self._compare_trained()

    def _compare_trained(self) -> None:
        """Compares what gradients change, after the steps seen so far; a collective."""
        self._steps_compared = self._steps_seen
        if self._guard_every is not None:
            compare(self._replicas, synchronized_variables(self.model), f"step {self._steps_seen}")
