"""The optimizer hook: a plain Keras optimizer takes the mean gradient of the global batch.

The gradient of replica r is the mean over its n_r samples, so the gradient of the global batch is
sum_r(n_r g_r) / sum_r(n_r). It is formed before the optimizer unscales, clips or applies anything, hence a step
equals the one that plain Keras takes in one process on the whole batch.

The optimizer's class is replaced in place by a subclass of the same name, for as long as `averaged_gradients` lasts:
its state, its configuration and what it saves stay those of the plain optimizer. The hook sits on the OUTERMOST
optimizer, so that under loss scaling all ranks see the same overflow and take the same decision.

Synopsis::

    with averaged_gradients(model.optimizer, parts) as hook:
        model.fit(...)           # each train step within parts.step(info)
    hook.calls                   # 0 means that the optimizer went another way: its gradients stayed local
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, ContextManager, Iterator, List, Optional, Sequence, Set, Tuple

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import inner_of, is_keras_3, is_legacy, update_of_all_optimizers
from hpcdl.runtime.overriding import attributes, overridden
from hpcdl.runtime.parts import Parts
from hpcdl.runtime.stopping import Wishes


class Hook:
    """Averages gradients over the replicas.

    Args:
        parts: Of the replicas.
        wishes: Of all ranks; they ride in the same exchange.

    Attributes:
        calls: How often gradients were averaged (while a graph is traced, or eagerly).
        strangers: Classes of other optimizers that have updated variables in a step.
        taken_as_means: Losses that are means only if the user has made them so; none with one replica.
        clipped: Operations that clipped gradients before they were averaged (found in graphs only); likewise.
    """

    def __init__(self, parts: Parts, wishes: Optional[Wishes] = None) -> None:
        self.calls = 0
        self.strangers: Set[str] = set()
        self.clipped: Set[str] = set()
        self._parts = parts
        self._wishes = wishes if wishes is not None and wishes.must_ride else None

    @property
    def taken_as_means(self) -> List[str]:
        return sorted(self._parts.taken_as_means) if self._parts.num_replicas > 1 else []

    def average(self, gradients: Sequence[Any]) -> List[Any]:
        """Gives sum_r(n_r g_r) / sum_r(n_r), dense; a None stays a None."""
        self.calls += 1
        if self._parts.num_replicas > 1:
            self.clipped.update(_clipping(gradients))
        return of_present(gradients, self._means)

    def _means(self, dense: List[Any]) -> List[Any]:
        sent = [self._wishes.to_send(dense[0].dtype)] if self._wishes is not None and dense else []
        means, heard = self._parts.exchange(dense, sent)
        if self._wishes is not None and heard:
            self._wishes.hear(heard[0])
        return means

    def average_pairs(self, grads_and_vars: Any) -> List[Tuple[Any, Any]]:
        """Averages the gradients of (gradient, variable) pairs."""
        pairs = list(grads_and_vars)
        averaged = self.average([gradient for gradient, _ in pairs])
        return [(gradient, variable) for gradient, (_, variable) in zip(averaged, pairs)]


def _clipping(gradients: Sequence[Any]) -> Iterator[str]:
    """Names the functions of TensorFlow's that gave gradients, if they clip; eager ones have no name."""
    for gradient in gradients:
        name = "" if gradient is None or tf.executing_eagerly() else gradient.name
        found = re.search(r"\bclip_by_(global_norm|norm|value)", name)
        if found and "gradient" not in name:  # as that of an activation which the model clips
            yield found.group()


def of_present(gradients: Sequence[Any], average: Callable[[List[Any]], List[Any]]) -> List[Any]:
    """Averages those gradients that there are; a None stays a None.

    They are dense in every strategy, also alone: Keras 3 does not add up the duplicate rows of sparse gradients.
    """
    present = [i for i, gradient in enumerate(gradients) if gradient is not None]
    averaged = list(gradients)
    for i, mean in zip(present, average([tf.convert_to_tensor(gradients[i]) for i in present])):
        averaged[i] = mean
    return averaged


@contextmanager
def averaged_gradients(optimizer: Any, parts: Parts, wishes: Optional[Wishes] = None) -> Iterator[Hook]:
    """Makes a plain Keras optimizer average its gradients over the replicas.

    Raises:
        BadInput: The optimizer was wrapped by Horovod, or its gradients cannot be reached.
    """
    check_plain(optimizer)
    hook = Hook(parts, wishes)
    inner = inner_of(optimizer)
    with ExitStack() as stack:
        stack.enter_context(_strangers_noted(optimizer, inner, parts, hook))
        if is_keras_3(optimizer):
            plain = type(optimizer)

            def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
                return plain.apply(self, hook.average(list(grads)), trainable_variables)

            stack.enter_context(overridden(optimizer, apply=apply))
            stack.enter_context(applied_as_they_are(optimizer))
        elif is_legacy(optimizer):
            stack.enter_context(_aggregated_by(inner, hook.average_pairs))
        else:  # Keras 2; under loss scaling the wrapper asks its inner optimizer to aggregate

            def aggregate_gradients(self: Any, grads_and_vars: Any) -> Any:
                return hook.average_pairs(grads_and_vars)

            stack.enter_context(overridden(inner, aggregate_gradients=aggregate_gradients))
        yield hook


@contextmanager
def _strangers_noted(optimizer: Any, inner: Any, parts: Parts, hook: Hook) -> Iterator[None]:
    """Notes the optimizers beside the model's own that update variables in a step: nobody averages their gradients."""
    of_all, name = update_of_all_optimizers(optimizer)
    plain = getattr(of_all, name)

    def update(self: Any, *args: Any, **kwargs: Any) -> Any:
        if parts.share is not None and self is not optimizer and self is not inner:
            hook.strangers.add(type(self).__name__)
        return plain(self, *args, **kwargs)

    with attributes(of_all, **{name: update}):
        yield


@contextmanager
def _aggregated_by(optimizer: Any, aggregator: Callable[[Any], Any]) -> Iterator[None]:
    plain = optimizer.gradient_aggregator
    optimizer.gradient_aggregator = aggregator
    try:
        yield
    finally:
        optimizer.gradient_aggregator = plain


def check_plain(optimizer: Any) -> None:
    """Refuses optimizers whose gradients the hook could not see."""
    inner = inner_of(optimizer)
    for one in (optimizer, inner):
        if type(one).__module__.startswith("horovod") or hasattr(one, "_allreduce_grads"):
            raise BadInput(
                "the optimizer must be a plain Keras one, since hpcdl averages its gradients; received one wrapped by"
                f" Horovod ({type(one).__name__}); take hvd.DistributedOptimizer away"
            )
    if any(base.__name__ == "MultiOptimizer" for base in type(inner).__mro__):
        raise BadInput(
            "a model is trained by one optimizer, whose gradients hpcdl averages; received a MultiOptimizer, which"
            " hands them to others; compile with one optimizer, or write the loop yourself with one for each part of"
            " the variables and run.average_gradients"
        )
    if not (is_keras_3(optimizer) or is_legacy(optimizer) or hasattr(inner, "aggregate_gradients")):
        raise BadInput(
            "the optimizer must be one of tf.keras.optimizers; received"
            f" {type(inner).__module__}.{type(inner).__name__}, whose gradients would stay local;"
            " derive it from a Keras optimizer"
        )


def applied_as_they_are(optimizer: Any) -> ContextManager[type]:
    """Keeps a Keras 3 optimizer from summing gradients over the local replicas: averaged ones are the same on each."""

    def as_they_are(self: Any, grads_and_vars: Any) -> Any:
        return grads_and_vars

    return overridden(inner_of(optimizer), _all_reduce_sum_gradients=as_they_are)
