"""Refuses arrays whose shapes do not fit the model, before a step: Keras says so in a traceback, or broadcasts.

Synopsis::

    check_shapes(model, (x, y), "training data")            # BadInput with both shapes
"""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import has_own_train_step, is_keras_3
from hpcdl.runtime.pairing import input_names, inputs_of, named, targets_of
from hpcdl.runtime.values import kind_of_loss

#: Losses that compare a target with an output entry by entry, and what to do where they cannot.
_ENTRY_BY_ENTRY = {
    "mean_squared_error": "reshape the data, or change the model",
    "mean_absolute_error": "reshape the data, or change the model",
    "binary_crossentropy": "reshape the data, or change the model",
    "categorical_crossentropy": "for class numbers take sparse_categorical_crossentropy, or reshape the data",
}


def check_shapes(model: Any, data: Any, what: str, outputs: Any = None) -> None:
    """Checks the shapes of the arrays that a model is to be fed.

    Args:
        model: Built, and compiled where there is a y. One of a class of the user's that does not say its inputs and
            outputs, or has a train_step of its own, is left alone.
        data: ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``, nests of arrays.
        what: Which data, for the message.
        outputs: Of a model that does not say its own.

    Raises:
        BadInput: An x does not fit its input, or a y its output.
    """
    if has_own_train_step(model):
        return
    _check_inputs(input_names(model), data[0], what)
    for tensor, name, array in inputs_of(model, data[0]):
        if array.dtype.kind in "US" and tf.as_dtype(tensor.dtype) != tf.string:
            raise BadInput(
                f"an input must be numbers, unless the model's is of dtype string; received texts in {name} of the"
                f" {what}; number them, or begin the model with keras.Input(..., dtype='string') and a lookup"
            )
        _check("an input", tensor.shape, name, array.shape, what, "reshape the data, or change the model")
    for loss, tensor, name, array in targets_of(model, data[1], outputs) if len(data) > 1 else ():
        kind = kind_of_loss(loss)
        if kind in _ENTRY_BY_ENTRY:
            _check(f"{kind} of an output", tensor.shape, name, array.shape, what, _ENTRY_BY_ENTRY[kind])
        elif kind == "sparse_categorical_crossentropy":
            way_out = "for one-hot rows take categorical_crossentropy, or pass y.argmax(-1)"
            _check(f"the y of {kind}", tensor.shape[:-1], name, array.shape, what, way_out)


def check_weights(model: Any, data: Any, what: str, outputs: Any = None) -> None:
    """Checks the shapes of sample weights: one for each row, or for each step in time or place of it.

    Args:
        model: As for `check_shapes`.
        data: Likewise.
        what: Likewise.
        outputs: Likewise.

    Raises:
        BadInput: Weights do not fit the loss of their output.
    """
    if len(data) < 3:
        return
    for loss, tensor, name, array in targets_of(model, data[2], outputs, "sample_weight", is_for_all=True):
        if kind_of_loss(loss) not in (*_ENTRY_BY_ENTRY, "sparse_categorical_crossentropy"):
            continue
        places, rows = tf.TensorShape(tensor.shape).as_list()[1:-1], list(array.shape[1:])
        if len(rows) == len(places) + 1 and rows[-1] == 1:
            rows.pop()
        # Keras 2 takes a weight of a row for all its steps or places, Keras 3 does not.
        is_short = len(rows) < len(places) and not is_keras_3(model.optimizer)
        if not is_short and (
            len(rows) != len(places) or any(n not in (1, m) and m is not None for n, m in zip(rows, places))
        ):
            wanted = ", ".join("any" if n is None else str(n) for n in [len(array), *places])
            raise BadInput(
                f"sample weights must be one number for each number of the loss; received {name} of the {what} with"
                f" rows of {tuple(array.shape[1:])}; pass weights of shape ({wanted})"
            )


def _check_inputs(names: Sequence[str], x: Any, what: str) -> None:
    """Refuses an ``x`` that has not one array for each input. What a dict has besides, Keras leaves out."""
    num_arrays = len(list(named(x, "x")))
    if isinstance(x, dict):
        missing = [name for name in names if name not in x]
        if missing and len(names) != 1:
            raise BadInput(
                f"the model must get an array for each of its inputs; received x of the {what} with the names"
                f" {sorted(x)}, without {missing[0]!r}; name the arrays {', '.join(names)}"
            )
    elif names and num_arrays != len(names):
        raise BadInput(
            f"the model must get an array for each of its inputs; received {num_arrays} arrays as x of the {what}, and"
            f" {len(names)} inputs; pass a list of {len(names)}, or a dict by their names"
        )


def _check(whose: str, wanted: Any, name: str, received: Tuple[int, ...], what: str, way_out: str) -> None:
    """Compares shapes without the rows; Keras adds and takes away a last axis of 1."""
    shape_of_model = tf.TensorShape(wanted)
    if shape_of_model.rank is None:
        return
    rows = shape_of_model.as_list()[1:]
    of_model, of_data = list(rows), list(received)[1:]
    for shape, other in ((of_model, of_data), (of_data, of_model)):
        if len(shape) == len(other) + 1 and shape[-1] == 1:
            shape.pop()
    fits = len(of_model) == len(of_data) and all(m in (None, d) for m, d in zip(of_model, of_data))
    if not fits:
        wanted_rows = ", ".join("any" if n is None else str(n) for n in rows)
        raise BadInput(
            f"shapes must fit: {whose} has rows of ({wanted_rows}); received {name} of the {what} with rows of"
            f" {tuple(received[1:])}; {way_out}"
        )
