"""Refuses data that a model cannot be trained on, before anything is written: Keras says so in the first step.

Synopsis::

    check_data(model, (x, y), "training data", replicas)      # BadInput with what was received, and the way out
    check_inputs(model, x, "data to predict on", replicas)
"""

from __future__ import annotations

import re
from typing import Any, List, Optional, Sequence

import tensorflow as tf

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput
from hpcdl.runtime.keras_edge import has_own, has_own_train_step, is_keras_3
from hpcdl.runtime.pairing import input_names, output_names, stated_outputs
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.shapes import check_shapes, check_weights
from hpcdl.runtime.values import check_values

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def check_data(model: Any, data: Any, what: str, replicas: Replicas) -> None:
    """Checks data to train or to evaluate on.

    Args:
        model: Compiled, with its variables.
        data: ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``, nests of arrays: all rows, or a first batch.
        what: Which data, for the message.
        replicas: Of the run.

    Raises:
        BadInput: Something is missing, has another shape, or values that no training can use.
    """
    outputs = check_inputs(model, data[0], what, replicas)
    if has_own_train_step(model):  # which makes of the data what it will
        return
    if not has_own("compute_loss", model):
        _check_targets(model, data, what, outputs)
    check_shapes(model, data, what, outputs)
    check_weights(model, data, what, outputs)
    check_values(model, data, what, outputs)


def check_inputs(model: Any, x: Any, what: str, replicas: Replicas) -> Any:
    """Checks what a model takes.

    Returns:
        Its outputs, as far as their shapes are known: those that it names, or for a class of the user's those that a
        trace of it gives; none where its own train_step makes of ``x`` what it will.
    """
    _check_names(model, x, what)
    check_shapes(model, (x,), what)
    outputs = stated_outputs(model)
    if tf.nest.flatten(outputs) or has_own_train_step(model):
        return outputs
    rows = tf.nest.map_structure(lambda array: tf.constant(array[:1]), x)
    specs = tf.nest.map_structure(lambda row: tf.TensorSpec([None, *row.shape[1:]], row.dtype), rows)
    try:
        with replicas.scope():
            forward = tf.function(lambda inputs: model(inputs, training=False))
            return forward.get_concrete_function(specs).structured_outputs
    except (ValueError, tf.errors.InvalidArgumentError) as problem:
        shapes = [tuple(row.shape[1:]) for row in tf.nest.flatten(rows)]
        raise BadInput(
            f"the model must take the data; received x of the {what} with rows of"
            f" {', '.join(map(str, shapes))}: {_in_one_line(problem)}; reshape the data, or change the model"
        ) from problem


def _check_names(model: Any, x: Any, what: str) -> None:
    """Refuses a dict none of whose names is that of an input of the model."""
    names = input_names(model) if isinstance(x, dict) and not has_own_train_step(model) else []
    if names and not set(names) & set(x):
        raise BadInput(
            f"x must be named as the inputs of the model are; received x of the {what} with the names"
            f" {sorted(map(str, x))}; name the arrays {', '.join(names)}, or pass one array, or a list"
        )


def _in_one_line(problem: Exception) -> str:
    """Picks, of the many lines of Keras, the one that tells of the shapes; else the first."""
    lines = [line.strip() for line in _COLOURS.sub("", str(problem)).splitlines() if line.strip()]
    told = next(
        (line for line in lines if re.search("shape|imension|incompatible", line)), lines[0] if lines else ""
    )
    return told[:200].replace(";", ",")


def _check_targets(model: Any, data: Any, what: str, outputs: Any) -> None:
    """Refuses data without a target for each loss, or with other weights than Keras takes."""
    if all(loss is None for loss in tf.nest.flatten(model.loss)):
        return
    if len(data) < 2:
        raise BadInput(
            f"a model that was compiled with a loss needs a y; received x alone as {what}; pass y as well, in a data"
            " set as (x, y), in validation_data as (x, y)"
        )
    if not tf.nest.flatten(outputs):
        return
    names = output_names(model, outputs)
    with_loss = _names_with_loss(model.loss, names)
    _check_each(data[1], "y", names, with_loss, is_keras_3(model.optimizer), what)
    if len(data) > 2:
        _check_each(data[2], "sample_weight", names, [], False, what)


def _names_with_loss(loss: Any, names: Sequence[Optional[str]]) -> List[Any]:
    """Lists the outputs that have a loss."""
    if isinstance(loss, dict):
        return [name for name in names if loss.get(name) is not None]
    if isinstance(loss, (list, tuple)) and len(loss) == len(names):
        return [name for name, one in zip(names, loss) if one is not None]
    return list(names)


def _check_each(
    nest: Any, said: str, names: Sequence[Any], needed: Sequence[Any], must_be_each: bool, what: str
) -> None:
    """Refuses a nest that has not an array for each output; one alone may stand for all, but for y under Keras 3."""
    if len(names) > 1 and isinstance(nest, dict) and all(isinstance(name, str) for name in names):
        missing = [name for name in needed if name not in nest]
        strange = [name for name in nest if name not in names]
        if missing or strange:
            wrong = missing[0] if missing else strange[0]
            hint = did_you_mean(str(wrong), strange if missing else names, most=1)
            raise BadInput(
                f"{said} must be named as the outputs of the model are; received {said} of the {what} with the names"
                f" {sorted(map(str, nest))}, {'without' if missing else 'and no output'} {wrong!r}; {hint}name the"
                f" arrays {', '.join(names)}"
            )
        return
    count = len(tf.nest.flatten(nest))
    allowed = {len(names), len(needed) or len(names), *(() if must_be_each else (1,))}
    if count not in allowed:
        raise BadInput(
            f"{said} must have an array for each output with a loss; received {count} as {said} of the {what}, and"
            f" {len(names)} outputs; pass a list of {len(needed) or len(names)}, or a dict by their names"
        )
