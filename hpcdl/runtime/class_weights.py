"""Class weights, as weights of samples.

Synopsis::

    check_class_weight({0: 1.0, 1: 2.5})                          # BadInput if it is no such dict
    with_class_weight({0: 1.0, 1: 2.5}, y, sample_weight=None)    # (N,) weights
"""

from __future__ import annotations

import math
import numbers
from typing import Any, Mapping

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput


def check_class_weight(class_weight: Any) -> None:
    """Refuses class weights that are no numbers by class: one under another name would never be looked up."""
    if class_weight is None:
        return
    is_dict = isinstance(class_weight, dict)
    items = list(class_weight.items()) if is_dict else []
    if not is_dict or not all(
        isinstance(n, numbers.Real) and math.isfinite(n) for item in items for n in item
    ):
        raise BadInput(
            f"class_weight must be a dict of a weight for each class number; received {class_weight!r:.60}; pass e.g."
            " {0: 1.0, 1: 2.5}"
        )


def one_target(y: Any) -> Any:
    """Gives the one array, or spec, of a nest of targets, whose classes are weighted.

    Raises:
        BadInput: There is none, there are several, or it holds no classes.
    """
    targets = [] if y is None else tf.nest.flatten(y)
    if len(targets) != 1:
        raise BadInput(
            f"class_weight needs one output; received {len(targets)} arrays as y; pass sample_weight instead"
        )
    (target,) = targets
    if target.dtype == object or tf.TensorShape(target.shape).rank not in (1, 2, None):
        raise BadInput(
            "class_weight needs one output, with class numbers or one-hot rows; received y of shape"
            f" {tuple(target.shape)}; pass sample_weight instead"
        )
    return target


def with_class_weight(class_weight: Mapping[int, float], y: Any, sample_weight: Any) -> Any:
    """Folds class weights into the sample weights, as Keras does.

    Args:
        class_weight: Weight of each class; a class that is not named has 1.
        y: An array of (N,) or (N, 1) class numbers, or of (N, classes) one-hot rows, or a nest of one.
        sample_weight: (N,), (N, 1) or (N, T) weights, or None.

    Raises:
        BadInput: As `one_target`.
    """
    classes = one_target(y)
    if classes.ndim == 2:
        classes = classes[:, 0] if classes.shape[1] == 1 else classes.argmax(-1)
    found, where = np.unique(classes, return_inverse=True)
    of_rows = np.array([class_weight.get(int(c), 1.0) for c in found])[where.reshape(-1)]
    if sample_weight is None:
        return of_rows
    weight = np.asarray(tf.nest.flatten(sample_weight)[0])
    if weight.shape[:1] != of_rows.shape:
        return weight  # which is refused together with all arrays of other lengths
    return weight * of_rows.reshape(-1, *[1] * (weight.ndim - 1))  # (N, 1) times (N,) would be (N, N)
