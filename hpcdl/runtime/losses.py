"""Losses as one process on the global batch has them, also those that are not means over samples.

hpcdl takes the mean of the replicas' losses, by their shares. For a mean over samples that is the loss of the global
batch. Others are corrected where Keras divides, so that the same mean gives them:

- A mean over the entries that a mask leaves (Masking, mask_zero, ignore_class), and Keras 3's
  ``mean_with_sample_weight``, over the sum of the weights: the divisor is summed over the replicas.
- A sum: each replica's counts as many times as the global batch is larger than its part.

Nothing is known of a loss that a function of the user's, or add_loss(), gives as one number: it is taken as a mean, and
the run says so (`Parts.taken_as_means`).

Synopsis::

    with global_losses(model, parts, replicas):
        model.fit(...)
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import tensorflow as tf

from hpcdl.common.errors import HpcdlError
from hpcdl.runtime.keras_edge import is_keras_3
from hpcdl.runtime.overriding import attributes, overridden
from hpcdl.runtime.parts import Parts
from hpcdl.runtime.replicas import Replicas

_MEANS = ("sum_over_batch_size", "mean", "auto")
_LOSS_FUNCTION = "the loss function"

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
            divided_by = module.apply_mask(sample_weight, mask, dtype=loss.dtype, reduction=reduction)
        else:
            divided_by = mask if reduction in _MEANS else None
        return loss if divided_by is None else loss * _correction(divided_by, loss.dtype, parts)

    return reduce_weighted_values


def _correction(divided_by: Any, dtype: Any, parts: Parts) -> tf.Tensor:
    own = tf.reduce_sum(tf.cast(divided_by, dtype))
    return tf.math.divide_no_nan(own, parts.divisor(own))


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
