"""Which array belongs to which input or output of a model: by its name, or by its place, as Keras has it.

Synopsis::

    for tensor, name, array in inputs_of(model, x): ...             # x['image'] and the input of that name
    for loss, tensor, name, array in targets_of(model, y): ...      # y[1], the second output and its loss
"""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import numpy as np
import tensorflow as tf


def inputs_of(model: Any, x: Any) -> Iterator[Tuple[Any, str, np.ndarray]]:
    """Gives the inputs of a model, each with its array in ``x`` and what a user calls that.

    Inputs without an array, and all of a class of the user's that does not say them, are left out.
    """
    names, tensors = input_names(model), _tensors(model, "inputs")
    for place, (name, tensor) in enumerate(zip(names, tensors)):
        said, array = _part(x, "x", name, place, len(tensors))
        if isinstance(array, np.ndarray):
            yield tensor, said, array


def targets_of(
    model: Any, y: Any, outputs: Any = None, said: str = "y", is_for_all: bool = False
) -> Iterator[Tuple[Any, Any, str, np.ndarray]]:
    """Gives the losses of a model, each with its output, with the target in ``y`` and what a user calls that.

    Args:
        model: Compiled.
        y: A nest of arrays for the outputs.
        outputs: A nest of what has a shape, for a class of the user's that does not say its own.
        said: What a user calls ``y``.
        is_for_all: Whether an array that is alone is that of all outputs.

    Where losses or targets are a dict, their outputs have the names that the model's dict of outputs, or else the
    layers, have. A loss that is alone is that of all outputs. Outputs without loss or target are left out.
    """
    outputs = stated_outputs(model) if outputs is None else outputs
    tensors, names = tf.nest.flatten(outputs), output_names(model, outputs)
    for place, (name, tensor) in enumerate(zip(names, tensors)):
        _, loss = _part(model.loss, "loss", name, place, len(tensors), is_for_all=True)
        of_user, array = _part(y, said, name, place, len(tensors), is_for_all)
        is_known = hasattr(tensor, "shape") and tf.TensorShape(tensor.shape).rank
        if loss is not None and is_known and isinstance(array, np.ndarray):
            yield loss, tensor, of_user, array


def stated_outputs(model: Any) -> Any:
    """Gives the outputs that a model names; an empty list, if it is of a class of the user's that does not."""
    try:
        nest = getattr(model, "output", None)  # which a Sequential of Keras 3 lacks
    except ValueError:  # or, of an early one, cannot give
        nest = None
    return getattr(model, "outputs", None) or [] if nest is None else nest


def output_names(model: Any, outputs: Any) -> List[Any]:
    """Lists the names of a nest of a model's outputs, in the order in which Keras flattens it; None: it has none."""
    if isinstance(outputs, dict):
        return sorted(outputs)
    count = len(tf.nest.flatten(outputs))
    of_layers = getattr(model, "output_names", None) or []
    return _names(model, "output", of_layers if len(of_layers) == count else [None] * count)


def input_names(model: Any) -> List[str]:
    """Lists the names of a model's inputs; none of a class of the user's that does not say them."""
    return _names(model, "input", [tensor.name for tensor in _tensors(model, "inputs")])


def named(nest: Any, name: str) -> Iterator[Tuple[str, Any]]:
    """Gives the arrays of a nest with the names that a user would write: ``x``, ``x[1]``, ``x['image']``."""
    if isinstance(nest, dict):
        for key in sorted(nest):
            yield from named(nest[key], f"{name}[{key!r}]")
    elif isinstance(nest, (list, tuple)):
        for i, item in enumerate(nest):
            yield from named(item, f"{name}[{i}]")
    else:
        yield name, nest


def _tensors(model: Any, which: str) -> List[Any]:
    return tf.nest.flatten(getattr(model, which, None) or [])


def _names(model: Any, which: str, of_tensors: List[Any]) -> List[Any]:
    """Gives names in the order in which Keras flattens a dict; those of the tensors, if there is none."""
    nest = getattr(model, which, None)  # which Keras 3 lacks where a model was not called
    return sorted(nest) if isinstance(nest, dict) else of_tensors


def _part(
    nest: Any, said: str, name: str, place: int, count: int, is_for_all: bool = False
) -> Tuple[str, Any]:
    """Gives what belongs to one of ``count`` inputs or outputs, and how a user writes it; None if nothing does."""
    if isinstance(nest, dict):
        return f"{said}[{name!r}]", nest.get(name)
    if isinstance(nest, (list, tuple)):
        return f"{said}[{place}]", nest[place] if len(nest) == count else None
    return said, nest if is_for_all or count == 1 else None
