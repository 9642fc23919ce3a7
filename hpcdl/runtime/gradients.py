"""The optimizer hook: a plain Keras optimizer takes the mean gradient of the global batch.

The gradient of replica r is the mean over its n_r samples, so the gradient of the global batch is
sum_r(n_r g_r) / sum_r(n_r). It is formed before the optimizer unscales, clips or applies anything, hence a step
equals the one that plain Keras takes in one process on the whole batch. The count rides in the same exchange.

The optimizer's class is replaced in place by a subclass of the same name, for as long as `averaged_gradients` lasts:
its state, its configuration and what it saves stay those of the plain optimizer. The hook sits on the OUTERMOST
optimizer, so that under loss scaling all ranks see the same overflow and take the same decision.

Synopsis::

    with averaged_gradients(model.optimizer, processes) as hook:
        model.fit(...)           # the train step sets hook.samples before it applies the gradients
    hook.calls                   # 0 means that the optimizer went another way: its gradients stayed local
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Sequence

import tensorflow as tf

from hpcdl.common.errors import BadInput


class Hook:
    """Averages gradients over the replicas.

    Attributes:
        samples: Tensor, the number of samples of this rank's part in the present step.
        calls: How often gradients were averaged (while a graph is traced, or eagerly).
    """

    def __init__(self, processes: Any, multiplier: Any = None) -> None:
        self.samples: Optional[tf.Tensor] = None
        self.calls = 0
        self.multiplier = multiplier
        self._processes = processes

    def average(self, gradients: Sequence[Any]) -> List[Any]:
        """Gives sum_r(n_r g_r) / sum_r(n_r), dense; a None stays a None."""
        self.calls += 1
        present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        # Dense in every strategy, also alone: Keras 3 does not add up the duplicate rows of sparse gradients.
        dense = [tf.convert_to_tensor(gradients[i]) for i in present]
        if self._processes.size > 1 and dense:
            count = tf.cast(
                self.samples, dense[0].dtype
            )  # of the gradients' dtype, to ride in their exchange
            *sums, total = self._processes.sum([g * tf.cast(count, g.dtype) for g in dense] + [count])
            dense = [s / tf.cast(total, s.dtype) for s in sums]
        averaged = list(gradients)
        for i, gradient in zip(present, dense):
            averaged[i] = gradient
        return averaged


@contextmanager
def averaged_gradients(optimizer: Any, processes: Any) -> Iterator[Hook]:
    """Makes an optimizer of Keras 3 or of Keras 2 average its gradients over the replicas.

    Raises:
        BadInput: Horovod wrapped the optimizer, or it is one of Keras' legacy optimizers.
    """
    check_plain(optimizer)
    hook = Hook(processes)
    target = optimizer
    if hasattr(optimizer, "apply"):  # Keras 3
        base = type(optimizer)

        def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
            return base.apply(self, hook.average(list(grads)), trainable_variables)

        overrides = {"apply": apply}
    else:  # Keras 2; under loss scaling the wrapper asks its inner optimizer to aggregate
        target = getattr(optimizer, "inner_optimizer", optimizer)

        def aggregate_gradients(self: Any, grads_and_vars: Any) -> Any:
            pairs = list(grads_and_vars)
            averaged = hook.average([gradient for gradient, _ in pairs])
            return [(gradient, variable) for gradient, (_, variable) in zip(averaged, pairs)]

        overrides = {"aggregate_gradients": aggregate_gradients}
    plain = type(target)
    target.__class__ = _subclass(plain, overrides)
    try:
        yield hook
    finally:
        target.__class__ = plain


def check_plain(optimizer: Any) -> None:
    """Refuses optimizers whose gradients the hook could not see."""
    if type(optimizer).__module__.startswith("horovod") or hasattr(optimizer, "_allreduce_grads"):
        raise BadInput(
            "the optimizer must be a plain Keras one, since hpcdl averages its gradients; received one wrapped by"
            f" Horovod ({type(optimizer).__name__}); take hvd.DistributedOptimizer away"
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(optimizer, "apply") and not hasattr(inner, "aggregate_gradients"):
        raise BadInput(
            "the optimizer must be one of tf.keras.optimizers; received the legacy one"
            f" {type(inner).__module__}.{type(inner).__name__}, whose gradients would stay local;"
            " use tf.keras.optimizers (with TensorFlow 2.12 not `import keras`, which gives the legacy ones)"
        )


def _subclass(base: type, overrides: dict) -> type:
    subclass = type(base.__name__, (base,), {**overrides, "__module__": base.__module__})
    subclass.__qualname__ = base.__qualname__  # what it saves must load as the plain optimizer
    return subclass
