"""Learning-rate scaling with gradual warmup, inside the optimizer.

The multiplier (`hpcdl.common.schedule.warmup_multiplier`) acts where the optimizer updates a variable, and only
there. Whoever else reads or sets the learning rate sees the user's own: a LearningRateSchedule, LearningRateScheduler
or ReduceLROnPlateau composes with it, and the optimizer that is saved has the user's rate.

With momentum SGD and RMSprop keep velocities v that contain the rate: v <- m v - lr g (in RMSprop g is divided by its
root mean square). While the rate changes from lr to lr', v is multiplied by lr' / lr before it is used (Goyal et al.
2017, section 3, remark 3: momentum correction).

Synopsis::

    with scaled_rate(model.optimizer, plan, first_iteration=0):
        model.fit(...)
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Iterator

import tensorflow as tf

from hpcdl.common.plan import Plan
from hpcdl.common.schedule import warmup_ramp
from hpcdl.runtime.keras_edge import has_velocities, inner_of, is_keras_3, is_legacy, velocity
from hpcdl.runtime.overriding import overridden


class Ramp:
    """The multiplier in the step that an optimizer is about to take, as a tensor.

    Args:
        optimizer: Its iterations count the updates.
        first_iteration: Of the ramp.
        warmup_steps: Length of the ramp.
        factor: After the ramp.
    """

    def __init__(self, optimizer: Any, first_iteration: int, warmup_steps: int, factor: float) -> None:
        self._optimizer, self._first_iteration = optimizer, first_iteration
        self._length = warmup_steps if factor > 1 else 0
        self._factor = factor
        # Keras 3 counts updates, not the steps whose gradients it accumulates for one.
        self._steps_per_update = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        self._updates_under_way = 0

    @property
    def is_updating(self) -> bool:
        """Whether the optimizer is within an update, so that the rate it asks for is that of the update."""
        return self._updates_under_way > 0

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Marks an update; replicas of one process, which are threads, may be in theirs at the same time."""
        self._updates_under_way += 1
        try:
            yield
        finally:
            self._updates_under_way -= 1

    def multiplier(self, dtype: Any) -> tf.Tensor:
        """Gives the multiplier of this step."""
        return self._at(self._step(), dtype)

    def correction(self, dtype: Any) -> tf.Tensor:
        """Gives the ratio of this step's multiplier to the one before."""
        step = self._step()
        return self._at(step, dtype) / self._at(tf.maximum(step - self._steps_per_update, 0), dtype)

    @property
    def has_correction(self) -> bool:
        """Whether the multiplier changes at all."""
        return self._length > 0

    def _step(self) -> tf.Tensor:
        updates = (
            tf.cast(tf.convert_to_tensor(self._optimizer.iterations), tf.float64) - self._first_iteration
        )
        return updates * self._steps_per_update

    def _at(self, step: tf.Tensor, dtype: Any) -> tf.Tensor:
        multiplier = tf.constant(self._factor, tf.float64)
        if self._length:
            ramp = warmup_ramp(step, self._length, self._factor)
            multiplier = tf.where(step < self._length, ramp, multiplier)
        return tf.cast(multiplier, dtype)


@contextmanager
def scaled_rate(optimizer: Any, plan: Plan, first_iteration: int) -> Iterator[None]:
    """Multiplies the learning rate of a plain Keras optimizer in its updates, as a plan says.

    Args:
        optimizer: Built.
        plan: Of the run.
        first_iteration: The optimizer's when the run began, from which the plan counts its steps.
    """
    if plan.factor == 1:
        yield
        return
    target = inner_of(optimizer)
    ramp = Ramp(target, first_iteration, plan.warmup_steps, plan.factor)
    with ExitStack() as stack:
        if is_legacy(optimizer):
            stack.enter_context(_scaled_legacy(target, ramp))
        else:
            stack.enter_context(
                _scaled(target, ramp, "apply" if is_keras_3(optimizer) else "apply_gradients")
            )
        if ramp.has_correction:
            update = "_resource_apply_dense" if is_legacy(optimizer) else "update_step"
            stack.enter_context(_corrected(target, ramp, update))
        yield


@contextmanager
def _scaled(target: Any, ramp: Ramp, update: str) -> Iterator[None]:
    plain = type(target)

    def updating(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ramp.updating():
            return getattr(plain, update)(self, *args, **kwargs)

    def rate(self: Any) -> Any:
        own = plain.learning_rate.fget(self)
        if not ramp.is_updating:
            return own
        own = tf.convert_to_tensor(own)
        return own * ramp.multiplier(own.dtype)

    overrides = {update: updating, "learning_rate": property(rate, plain.learning_rate.fset)}
    with overridden(target, **overrides):
        yield


@contextmanager
def _scaled_legacy(target: Any, ramp: Ramp) -> Iterator[None]:
    plain = type(target)

    def decayed_rate(self: Any, dtype: Any) -> Any:
        return plain._decayed_lr(self, dtype) * ramp.multiplier(dtype)

    with overridden(target, _decayed_lr=decayed_rate):
        yield


@contextmanager
def _corrected(target: Any, ramp: Ramp, update: str) -> Iterator[None]:
    """Corrects the velocities of SGD and RMSprop; other optimizers keep moments of the gradient alone."""
    if not has_velocities(target):
        yield
        return
    plain = type(target)

    def corrected(self: Any, gradient: Any, variable: Any, *args: Any, **kwargs: Any) -> Any:
        velocities = velocity(self, variable)
        velocities.assign(velocities * ramp.correction(velocities.dtype))
        return getattr(plain, update)(self, gradient, variable, *args, **kwargs)

    with overridden(target, **{update: corrected}):
        yield
