"""Synchronized BatchNormalization: mean and variance of the global batch, whatever its parts.

Keras' own ``synchronized=True`` reaches the replicas of one process only, and takes them for equally large. Here each
layer exchanges one sum of [sum, sum of squares, count] in a step, and one of their gradients.

Synopsis::

    with synchronized_normalization(model, parts):
        model.fit(...)
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Iterator, List, Sequence, Tuple

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.overriding import overridden
from hpcdl.runtime.parts import Parts


@contextmanager
def synchronized_normalization(model: Any, parts: Parts) -> Iterator[None]:
    """Makes a model's synchronized layers take their statistics over all replicas."""
    with ExitStack() as stack:
        for layer in synchronized_layers(model):
            stack.enter_context(_synchronized(layer, parts))
        yield


def synchronized_layers(model: Any) -> List[Any]:
    """Lists the BatchNormalization layers that ask for statistics of the global batch.

    Raises:
        BadInput: A layer of another kind asks for it.
    """
    layers = [layer for layer in model._flatten_layers() if getattr(layer, "synchronized", False)]
    for layer in layers:
        if not hasattr(layer, "_moments") or not hasattr(layer, "moving_mean"):
            raise BadInput(
                "only Keras' BatchNormalization can be synchronized; received layer"
                f" {layer.name} of {type(layer).__module__}.{type(layer).__name__}; use synchronized=False"
            )
    return layers


@contextmanager
def _synchronized(layer: Any, parts: Parts) -> Iterator[None]:
    plain = type(layer)

    def moments_2(self: Any, inputs: Any, reduction_axes: Any, keep_dims: bool, mask: Any = None) -> Any:
        if parts.share is None:  # the user calls the model beside the steps
            return plain._no_sync_calculate_mean_and_var(self, inputs, reduction_axes, keep_dims, mask=mask)
        mean, variance = _moments(inputs, list(reduction_axes), self.moving_mean, mask, parts)
        if not keep_dims:
            mean, variance = tf.squeeze(mean, reduction_axes), tf.squeeze(variance, reduction_axes)
        return mean, variance

    def moments_3(self: Any, inputs: Any, mask: Any = None) -> Any:
        if parts.share is None:
            return plain._moments(self, inputs, mask)
        axes = self._reduction_axes
        mean, variance = _moments(inputs, axes, self.moving_mean, mask, parts)
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

    is_keras_2 = hasattr(plain, "_calculate_mean_and_var")
    overrides = {"_calculate_mean_and_var": moments_2} if is_keras_2 else {"_moments": moments_3}
    with overridden(layer, **overrides):
        yield


def _moments(
    inputs: tf.Tensor, axes: Sequence[int], moving_mean: Any, mask: Any, parts: Parts
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Gives mean and variance over the global batch, of the inputs' rank."""
    # Squares of deviations from the moving mean, which all replicas hold alike: far from 0 they keep their digits.
    shape = [1 if axis in axes else size for axis, size in enumerate(inputs.shape)]
    centre = tf.stop_gradient(tf.reshape(tf.cast(tf.convert_to_tensor(moving_mean), inputs.dtype), shape))
    deviations = inputs - centre
    if mask is None:
        count = tf.fill(tf.shape(centre), tf.cast(tf.size(inputs) / tf.size(centre), inputs.dtype))
    else:
        weights = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., tf.newaxis], tf.shape(inputs))
        count = tf.reduce_sum(weights, axes, keepdims=True)
        deviations *= weights
    of_part = [tf.reduce_sum(t, axes, keepdims=True) for t in (deviations, deviations**2)]
    total, squares, count = tf.unstack(_summed(tf.stack([*of_part, count]), parts))
    mean = total / count
    return centre + mean, tf.maximum(squares / count - mean**2, 0)


def _summed(values: tf.Tensor, parts: Parts) -> tf.Tensor:
    """Sums over the replicas, with the gradient that leaves a mean of the replicas' gradients by their shares exact."""
    share = tf.cast(parts.share, values.dtype)

    @tf.custom_gradient
    def summed(own: tf.Tensor) -> Any:
        return parts.sum(own), lambda upstream: parts.sum(upstream * share) / share

    return summed(values)
