"""Refuses data with which training could only go wrong: NaN, and labels that are none of the classes.

On a GPU Keras takes a label outside the classes without a word, and the loss becomes NaN.

Synopsis::

    check_values(model, (x, y), "training data")            # BadInput with the row
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import is_of_keras
from hpcdl.runtime.pairing import named, targets_of

#: Rows that are looked at in one go, so that a large array needs no second one of its size.
_ROWS = 4096


def check_values(model: Any, data: Any, what: str, outputs: Any = None) -> None:
    """Checks the arrays that a model is to be fed.

    Args:
        model: Compiled and built.
        data: ``(x, y)`` or ``(x, y, sample_weight)``, nests of arrays.
        what: Which data, for the message.
        outputs: Of a model that does not say its own.

    Raises:
        BadInput: An x or a weight is no finite number somewhere, or a label is none of the classes, or what a loss of
            Keras' compares is not finite. What a loss of the user's own compares is left alone: it may know what to do
            with NaN.
    """
    for name, array in named(data[0], "x"):
        _check_finite(array, "the input", name, what)
    if len(data) < 2:
        return
    for loss, output, name, array in targets_of(model, data[1], outputs):
        _check_labels(loss, int(output.shape[-1] or 0), name, array, what)
        if is_of_keras(tf.keras.losses.get(loss)):  # it may be given by name
            _check_finite(array, "what a loss compares", name, what)
    for name, array in named(data[2], "sample_weight") if len(data) > 2 else ():
        _check_finite(array, "sample weights", name, what)


def _check_finite(array: np.ndarray, rule: str, name: str, what: str) -> None:
    row = _first_row(array, _is_not_finite) if array.dtype.kind == "f" else None
    if row is not None:
        kind = "NaN" if np.isnan(array[row]).any() else "inf"
        raise BadInput(
            f"{rule} must be finite numbers; received {kind} in {name} of the {what}, first in row {row}; leave such"
            " rows out, or put a number in their place"
        )


def _check_labels(loss: Any, num_classes: int, name: str, labels: np.ndarray, what: str) -> None:
    is_wrong: Callable[[np.ndarray], Any]
    kind = kind_of_loss(loss)
    if labels.dtype.kind in "US":
        raise BadInput(
            f"labels must be numbers; received texts in {name} of the {what}; number the classes from 0, as"
            " np.unique(y, return_inverse=True)[1] does"
        )
    if kind == "sparse_categorical_crossentropy" and num_classes:
        config = loss.get_config() if hasattr(loss, "get_config") else {}  # Keras 2 has no such attribute
        ignored = config.get("ignore_class")
        most = num_classes - 1
        said = f"0 to {most}, whole numbers, as the model has {num_classes} outputs"
        is_wrong = lambda y: ((y < 0) | (y > most) | (y % 1 != 0)) & (y != ignored)  # noqa: E731
    elif kind == "binary_crossentropy":
        said = "between 0 and 1, as the loss is binary_crossentropy"
        is_wrong = lambda y: (y < 0) | (y > 1)  # noqa: E731
    else:
        return
    row = _first_row(labels, is_wrong)
    if row is not None:
        wrong = labels[row].reshape(-1)
        value = wrong[np.argmax(is_wrong(wrong))]
        raise BadInput(
            f"labels must be {said}; received {value} in {name} of the {what}, first in row {row}; number the classes"
            " from 0, or give the model more outputs"
        )


def _is_not_finite(rows: np.ndarray) -> np.ndarray:
    return ~np.isfinite(rows)


def kind_of_loss(loss: Any) -> str:
    """Names a loss, whether it is given as a name, a function or an object."""
    if isinstance(loss, str):
        return {"mse": "mean_squared_error", "mae": "mean_absolute_error"}.get(loss, loss)
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return {
        "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
        "CategoricalCrossentropy": "categorical_crossentropy",
        "BinaryCrossentropy": "binary_crossentropy",
        "MeanSquaredError": "mean_squared_error",
        "MeanAbsoluteError": "mean_absolute_error",
    }.get(name, name)


def _first_row(array: np.ndarray, is_wrong: Any) -> Optional[int]:
    """Gives the first row in which any element is wrong; None if none is."""
    for begin in range(0, len(array), _ROWS):
        rows = array[begin : begin + _ROWS]
        wrong = is_wrong(rows)
        if wrong.any():
            return begin + int(np.argmax(wrong.reshape(len(rows), -1).any(axis=1)))
    return None
