"""Losses as one process on the global batch has them, also those that are not means over samples.

hpcdl takes the mean of the replicas' losses, by their shares. For a mean over samples that is the loss of the global
batch. Others are corrected where Keras divides, so that the same mean gives them:

- A mean over the entries that a mask leaves (Masking, mask_zero, ignore_class), and Keras 3's
  ``mean_with_sample_weight``, over the sum of the weights: the divisor is summed over the replicas.
- A sum: each replica's counts as many times as the global batch is larger than its part. What a regularizer of Keras'
  says of a layer's activity is one in Keras 3 before 3.14.

Nothing is known of a loss that a function of the user's, or add_loss(), gives as one number: it is taken as a mean, and
the run says so (`Parts.taken_as_means`).

Synopsis::

    with global_losses(model, parts, replicas):
        model.fit(...)
"""

from __future__ import annotations

import copy
import importlib
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import tensorflow as tf

from hpcdl.common.errors import HpcdlError
from hpcdl.common.releases import is_keras_3_before
from hpcdl.runtime.keras_edge import is_keras_3, is_of_keras
from hpcdl.runtime.overriding import attributes, overridden
from hpcdl.runtime.parts import Parts
from hpcdl.runtime.replicas import Replicas

_MEANS = ("sum_over_batch_size", "mean", "auto")
_LOSS_FUNCTION = "the loss function"

#: The minor versions of Keras 3 from which on a mean over a mask is divided by nothing but what the mask leaves, and
#: what a regularizer says of a layer's activity by the batch size.
_NO_EPSILON_SINCE, _ACTIVITY_IS_MEAN_SINCE = 13, 14

#: What divides a loss by the number of replicas in the process.
_SCALING = ("scale_loss_for_distribution", "unscale_loss_for_distribution")


@contextmanager
def global_losses(model: Any, parts: Parts, replicas: Replicas) -> Iterator[None]:
    """Makes the mean of the replicas' losses that of the global batch.

    Raises:
        HpcdlError: This Keras keeps its losses elsewhere.
    """
    module, makers = _reductions(model)
    overrides = {name: make(module, parts) for name, make in makers.items()}
    with ExitStack() as stack:
        if replicas.per_process > 1:
            # Keras would divide every loss that it reduces by the number of local replicas, but not one that a
            # train_step of the user's reduces by itself. Without the division a loss means the same in all worlds.
            overrides.update({name: lambda value: value for name in _SCALING if hasattr(module, name)})
            for loss in _sums(model):
                stack.enter_context(_not_multiplied(loss))
        for layer in _layers_that_sum_their_activity(model, module):
            stack.enter_context(_activity_of_global_batch(layer, parts))
        stack.enter_context(attributes(module, **overrides))
        yield


def _reductions(model: Any) -> Tuple[Any, Dict[str, Callable[..., Any]]]:
    """Gives the module that holds the reductions of a model's Keras, and what makes the ones to take their place."""
    # Where a Model is defined, below the root package of its Keras -> where losses are reduced, by which functions.
    generations = {
        ".models.model": (".losses.loss", {"reduce_weighted_values": _keras_3_values}),
        ".engine.training": (
            ".utils.losses_utils",
            {"apply_valid_mask": _keras_2_mask, "compute_weighted_loss": _keras_2_values},
        ),
    }
    for base in type(model).__mro__:
        for suffix, (where, makers) in generations.items():
            if base.__module__.endswith(suffix):
                module = importlib.import_module(base.__module__[: -len(suffix)] + where)
                missing = [name for name in (*makers, _SCALING[0]) if not hasattr(module, name)]
                if missing:
                    raise HpcdlError(
                        f"hpcdl knows Keras 2.12 to 3.15; received one whose {module.__name__} has no"
                        f" {', '.join(missing)}; use strategy single, which does not need it"
                    )
                return module, makers
    raise HpcdlError(
        f"the model must be a Keras model; received {type(model).__module__}.{type(model).__qualname__};"
        " derive it from tf.keras.Model"
    )


def _keras_3_values(module: Any, parts: Parts) -> Callable[..., Any]:
    plain = module.reduce_weighted_values
    epsilon = module.backend.epsilon() if is_keras_3_before(_NO_EPSILON_SINCE, _version(module)) else 0.0

    def reduce_weighted_values(
        values: Any,
        sample_weight: Any = None,
        mask: Any = None,
        reduction: Any = "sum_over_batch_size",
        dtype: Any = None,
    ) -> Any:
        loss = plain(values, sample_weight=sample_weight, mask=mask, reduction=reduction, dtype=dtype)
        if parts.share is None:
            return loss
        if not len(values.shape):
            parts.taken_as_means.add(_LOSS_FUNCTION)
            return loss
        if reduction == "sum":
            return loss / tf.cast(parts.fraction, loss.dtype)
        if reduction == "mean_with_sample_weight":
            weights = module.apply_mask(sample_weight, mask, dtype=loss.dtype, reduction=reduction)
            return loss if weights is None else loss * _correction(weights, 0.0, loss.dtype, parts)
        if reduction not in _MEANS or mask is None:
            return loss
        return loss * _correction(mask, epsilon, loss.dtype, parts)

    return reduce_weighted_values


def _correction(divided_by: Any, epsilon: float, dtype: Any, parts: Parts) -> tf.Tensor:
    """Gives what makes of a mean over a part's entries its share in that over those of the global batch.

    Keras has divided by the sum of ``divided_by``, and added ``epsilon`` to it.
    """
    own = tf.reduce_sum(tf.cast(divided_by, dtype))
    return tf.math.divide_no_nan(own + epsilon, parts.divisor(own + epsilon * tf.cast(parts.fraction, dtype)))


def _version(module: Any) -> str:
    """Gives the version of the Keras that a module is part of."""
    return str(importlib.import_module(module.__name__.split(".")[0]).__version__)


def _layers_that_sum_their_activity(model: Any, module: Any) -> List[Any]:
    """Lists the layers whose activity a regularizer of Keras' adds up over the rows of a batch."""
    if not is_keras_3_before(_ACTIVITY_IS_MEAN_SINCE, _version(module)):
        return []
    return [
        layer
        for layer in model._flatten_layers()
        if is_of_keras(getattr(layer, "activity_regularizer", None))
    ]


@contextmanager
def _activity_of_global_batch(layer: Any, parts: Parts) -> Iterator[None]:
    plain = type(layer.activity_regularizer)

    def call(self: Any, activity: Any) -> Any:
        loss = plain.__call__(self, activity)
        return loss if parts.share is None else loss / tf.cast(parts.fraction, loss.dtype)

    mine = copy.copy(layer.activity_regularizer)  # which may be that of a layer's kernel as well
    with overridden(mine, __call__=call), attributes(layer, activity_regularizer=mine):
        yield


def _keras_2_mask(module: Any, parts: Parts) -> Callable[..., Any]:
    plain = module.apply_valid_mask

    def apply_valid_mask(losses: Any, sample_weight: Any, mask: Any, reduction: Any) -> Any:
        if parts.share is None or mask is None or reduction not in _MEANS:
            return plain(losses, sample_weight, mask, reduction)
        # Keras divides by the number of valid entries, which may be 0 in a part.
        weight = plain(losses, sample_weight, mask, "none")
        entries = tf.cast(tf.size(mask), weight.dtype)
        return weight * entries / parts.divisor(tf.reduce_sum(tf.cast(mask, weight.dtype)))

    return apply_valid_mask


def _keras_2_values(module: Any, parts: Parts) -> Callable[..., Any]:
    plain = module.compute_weighted_loss

    def compute_weighted_loss(
        losses: Any, sample_weight: Any = None, reduction: Any = "sum_over_batch_size", name: Any = None
    ) -> Any:
        loss = plain(losses, sample_weight, reduction=reduction, name=name)
        if parts.share is None:
            return loss
        if not losses.shape.rank:
            parts.taken_as_means.add(_LOSS_FUNCTION)
        if reduction != "sum":
            return loss
        return loss / tf.cast(parts.fraction, loss.dtype)

    return compute_weighted_loss


def _sums(model: Any) -> List[Any]:
    """Lists the losses given to Keras 2's compile() that are sums."""
    losses = [] if is_keras_3(model.optimizer) else tf.nest.flatten(model.loss)
    return [loss for loss in losses if getattr(loss, "reduction", None) == "sum"]


@contextmanager
def _not_multiplied(loss: Any) -> Iterator[None]:
    """Hides from Keras 2's container that a loss is a sum: it would log it times the number of local replicas."""
    overrides = {"reduction": property(lambda self: "sum of hpcdl"), "_get_reduction": lambda self: "sum"}
    with overridden(loss, **overrides):
        yield
