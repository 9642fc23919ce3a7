"""Updates of Keras 3's optimizers that Keras itself cannot do on several replicas in one process.

Gradient accumulation, and moving averages of the weights that overwrite them now and then, are conditions on the
number of the step. Keras takes them in each replica, where TensorFlow's strategies allow no update of a variable. Here
the process takes them once for all its replicas.

Synopsis::

    with updates_across_replicas(optimizer, replicas):
        model.fit(...)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence

import tensorflow as tf

from hpcdl.runtime.keras_edge import inner_of, is_keras_3
from hpcdl.runtime.overriding import overridden
from hpcdl.runtime.replicas import Replicas


@contextmanager
def updates_across_replicas(optimizer: Any, replicas: Replicas) -> Iterator[None]:
    """Makes a Keras 3 optimizer accumulate gradients, and overwrite weights, for all replicas of a process."""
    target = inner_of(optimizer)
    has_conditions = is_keras_3(target) and (
        target.gradient_accumulation_steps or (target.use_ema and target.ema_overwrite_frequency)
    )
    if replicas.per_process == 1 or not has_conditions:
        yield
        return

    def apply_gradients(self: Any, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        if self.gradient_accumulation_steps:
            _accumulate(self, list(grads), list(trainable_variables))
        else:
            _update(self, grads, trainable_variables)
        if self.use_ema:
            self._update_model_variables_moving_average(self._trainable_variables)
            if self.ema_overwrite_frequency:
                _overwrite(self)

    with overridden(target, _backend_apply_gradients=apply_gradients):
        yield


def _update(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
    gradients = optimizer._clip_gradients(gradients)
    optimizer._apply_weight_decay(variables)
    optimizer._backend_update_step(gradients, variables, optimizer.learning_rate)


def _accumulate(optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
    steps = optimizer.gradient_accumulation_steps
    sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(v)] for v in variables]

    def update(gradients: Sequence[Any]) -> None:
        _update(optimizer, [(g + s) / steps for g, s in zip(gradients, sums)], variables)
        optimizer._backend_reset_gradient_accumulators()

    def keep(gradients: Sequence[Any]) -> None:
        optimizer._backend_increment_gradient_accumulators(gradients, sums)

    def across(distribution: Any, gradients: Sequence[Any]) -> None:
        def in_each(function: Callable[[Any], None]) -> Callable[[], None]:
            return lambda: distribution.extended.call_for_each_replica(function, args=(gradients,))

        _every(steps, optimizer._iterations, in_each(update), in_each(keep))

    tf.distribute.get_replica_context().merge_call(across, args=(gradients,))


def _overwrite(optimizer: Any) -> None:
    def across(distribution: Any) -> None:
        variables = optimizer._trainable_variables
        overwrite = optimizer._overwrite_model_variables_with_average_value
        # As Keras has it: by updates, not by the steps that were accumulated.
        steps = optimizer.ema_overwrite_frequency
        _every(steps, optimizer.iterations, lambda: overwrite(variables), lambda: None)

    tf.distribute.get_replica_context().merge_call(across)


def _every(steps: int, done_before: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
    """Calls one function in every ``steps``-th step, and another one in the others; across replicas."""

    def done(function: Callable[[], Any]) -> Callable[[], tf.Tensor]:
        def call() -> tf.Tensor:
            function()
            return tf.constant(True)  # both branches must give something alike

        return call

    is_due = tf.equal((tf.convert_to_tensor(done_before) + 1) % steps, 0)
    tf.cond(is_due, done(then), done(otherwise))
