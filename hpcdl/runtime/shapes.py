"""Refuses arrays whose shapes do not fit the model, before a step: Keras says so in a traceback, or broadcasts.

Synopsis::

    check_shapes(model, (x, y), "training data")            # BadInput with both shapes
"""

from __future__ import annotations

from typing import Any, List, Tuple

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import has_own_train_step
from hpcdl.runtime.values import kind_of_loss, named

#: Losses that compare a target with an output entry by entry.
_ENTRY_BY_ENTRY = (
    "mean_squared_error",
    "mean_absolute_error",
    "binary_crossentropy",
    "categorical_crossentropy",
)


def check_shapes(model: Any, data: Any, what: str) -> None:
    """Checks the shapes of the arrays that a model is to be fed.

    Args:
        model: Compiled and built. One of a class of the user's that does not say its inputs and outputs, or has a
            train_step of its own, is left alone.
        data: ``(x, y)`` or ``(x, y, sample_weight)``, nests of arrays.
        what: Which data, for the message.

    Raises:
        BadInput: An x does not fit its input, or a y its output.
    """
    if has_own_train_step(model):
        return
    inputs = tf.nest.flatten(getattr(model, "inputs", None) or [])
    arrays = list(named(data[0], "x"))
    if inputs and not isinstance(data[0], dict) and len(arrays) != len(inputs):
        raise BadInput(
            f"the model must get an array for each of its inputs; received {len(arrays)} arrays as x of the {what}, and"
            f" {len(inputs)} inputs; pass a list of {len(inputs)}, or a dict by their names"
        )
    if len(arrays) == len(inputs) and not isinstance(data[0], dict):
        for wanted, (name, array) in zip(inputs, arrays):
            _check("an input", wanted.shape, name, array.shape, what)
    outputs = tf.nest.flatten(getattr(model, "outputs", None) or [])
    losses = tf.nest.flatten(model.loss)
    targets = list(named(data[1], "y")) if len(data) > 1 and not isinstance(data[1], dict) else []
    if len(losses) == len(outputs) == len(targets):
        for loss, wanted, (name, array) in zip(losses, outputs, targets):
            if kind_of_loss(loss) in _ENTRY_BY_ENTRY:
                _check(f"{kind_of_loss(loss)} of an output", wanted.shape, name, array.shape, what)


def _check(whose: str, wanted: Any, name: str, received: Tuple[int, ...], what: str) -> None:
    """Compares shapes without the rows; Keras adds and takes away a last axis of 1."""
    of_model: List[Any] = list(wanted)[1:]
    of_data: List[Any] = list(received)[1:]
    for shape, other in ((of_model, of_data), (of_data, of_model)):
        if len(shape) == len(other) + 1 and shape[-1] == 1:
            shape.pop()
    fits = len(of_model) == len(of_data) and all(m in (None, d) for m, d in zip(of_model, of_data))
    if not fits:
        rows = ", ".join("any" if n is None else str(n) for n in list(wanted)[1:])
        raise BadInput(
            f"shapes must fit: {whose} has rows of ({rows}); received {name} of the {what} with rows of"
            f" {tuple(received[1:])}; reshape the data, or change the model"
        )
