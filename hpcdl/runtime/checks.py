"""What `Run.fit` refuses: models and arguments with which the steps would not be exact, or not be possible.

Every message has the rule, what was received, and the way out.
"""

from __future__ import annotations

import numbers
from typing import Any, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.gradients import check_plain
from hpcdl.runtime.keras_edge import (
    has_variables,
    iterations_variable,
    learning_rate_variable,
    made_variable,
    mixes_samples,
)
from hpcdl.runtime.normalization import synchronized_layers
from hpcdl.runtime.replicas import Replicas


def nest_of_arrays(data: Any, class_weight: Optional[Mapping[int, float]] = None) -> Tuple[Any, int]:
    """Makes arrays of ``(x, y, sample_weight)``, floating ones in Keras' floatx, as Keras does; Nones fall away.

    Args:
        data: A nest of what NumPy makes arrays of.
        class_weight: As in Keras; it is folded into the sample weights.

    Returns:
        The nest, with tuples for lists, and its number of rows. An array that needs no change is the user's own, not a
        copy.
    """
    while data and data[-1] is None:
        data = data[:-1]

    def array(value: Any) -> np.ndarray:
        made = np.asarray(value)
        if made.dtype == object or made.ndim == 0:
            raise BadInput(
                f"data must be arrays of rows; received {_described(value)}; pass NumPy arrays (or lists or dicts"
                " of them) for x, y and sample_weight"
            )
        # A copy of a whole data set would be the peak of a rank's memory.
        return made.astype(tf.keras.backend.floatx(), copy=False) if made.dtype.kind == "f" else made

    arrays = tf.nest.map_structure(array, _tuples_for_lists(data))
    if class_weight is not None:
        x, y, weight = (*arrays, None, None)[:3]
        arrays = (x, y, array(with_class_weight(class_weight, y, weight)))
    rows = [len(a) for a in tf.nest.flatten(arrays)]
    if not rows or len(set(rows)) > 1 or rows[0] == 0:
        raise BadInput(f"all arrays must have the same number of rows, at least 1; received {rows}")
    return arrays, rows[0]


def _tuples_for_lists(nest: Any) -> Any:
    """Makes tuples of lists: tf.data would stack the members of a list, as if they were one array."""
    if isinstance(nest, dict):
        return {name: _tuples_for_lists(value) for name, value in nest.items()}
    if isinstance(nest, list) and any(np.isscalar(value) for value in nest):
        raise BadInput(
            "a list holds the arrays of several inputs or outputs; received a list of numbers or texts,"
            f" {nest!r:.40}; pass np.array(...) of your data"
        )
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*map(_tuples_for_lists, nest))
    return tuple(map(_tuples_for_lists, nest)) if isinstance(nest, (list, tuple)) else nest


def _described(value: Any) -> str:
    dtype = f" of {value.dtype.name}" if isinstance(value, np.ndarray) else ""
    return f"{type(value).__name__}{dtype}"


def check_class_weight(class_weight: Any) -> None:
    """Refuses class weights that are no numbers by class: one under another name would never be looked up."""
    if class_weight is None:
        return
    is_dict = isinstance(class_weight, dict)
    items = list(class_weight.items()) if is_dict else []
    if not is_dict or not all(isinstance(n, numbers.Real) for item in items for n in item):
        raise BadInput(
            f"class_weight must be a dict of a weight for each class number; received {class_weight!r:.60}; pass e.g."
            " {0: 1.0, 1: 2.5}"
        )


def with_class_weight(class_weight: Mapping[int, float], y: Any, sample_weight: Any) -> Any:
    """Folds class weights into the sample weights, as Keras does.

    Args:
        class_weight: Weight of each class; a class that is not named has 1.
        y: (N,) class numbers, (N, 1) likewise, or (N, classes) one-hot; a nest of several is refused.
        sample_weight: (N,), (N, 1) or (N, T) weights, or None.
    """
    targets, weights = tf.nest.flatten(y), tf.nest.flatten(sample_weight)
    if y is None or len(targets) != 1:
        raise BadInput(
            f"class_weight needs one output; received {0 if y is None else len(targets)} arrays as y; pass"
            " sample_weight instead"
        )
    classes = np.asarray(targets[0])
    if classes.dtype == object or classes.ndim not in (1, 2):
        raise BadInput(
            f"class_weight needs one output, with class numbers or one-hot rows; received y of shape {classes.shape};"
            " pass sample_weight instead"
        )
    if classes.ndim == 2:
        classes = classes[:, 0] if classes.shape[1] == 1 else classes.argmax(-1)
    found, where = np.unique(classes, return_inverse=True)
    of_rows = np.array([class_weight.get(int(c), 1.0) for c in found])[where.reshape(-1)]
    if sample_weight is None:
        return of_rows
    weight = np.asarray(weights[0])
    if weight.shape[:1] != of_rows.shape:
        return weight  # which is refused together with all arrays of other lengths
    return weight * of_rows.reshape(-1, *[1] * (weight.ndim - 1))  # (N, 1) times (N,) would be (N, N)


def check_model(model: Any, replicas: Replicas) -> None:
    """Refuses a model that is not compiled, or that cannot be trained exactly in this world."""
    check_compiled(model, replicas)
    check_plain(model.optimizer)


def check_compiled(model: Any, replicas: Replicas) -> None:
    """Refuses a model that is not compiled, or whose losses are none of a global batch."""
    check_keras(model)
    if getattr(model, "optimizer", None) is None:
        raise BadInput(
            "the model must be compiled; received one without an optimizer; call model.compile(...) first"
        )
    check_place(model, replicas)
    if replicas.num_replicas == 1:
        return
    for loss in tf.nest.flatten(model.loss):
        reduction = getattr(loss, "reduction", "sum")
        if reduction in (None, "none"):
            raise BadInput(
                "a loss must be one number for a batch; received"
                f" {type(loss).__name__} with reduction={reduction!r}; use reduction='sum_over_batch_size' or 'sum'"
            )
        if mixes_samples(loss):
            name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
            raise BadInput(
                "replicas share a batch, so a loss must be one of each sample; received"
                f" {name}, which takes the samples of a batch together; use strategy single, or for dice and tversky"
                " the axes of one sample, such as axis=(1, 2, 3)"
            )
    synchronized_layers(model)


def check_keras(model: Any) -> None:
    """Refuses what is no model of the Keras that TensorFlow uses."""
    if not isinstance(model, tf.keras.Model):
        raise BadInput(
            "the model must be made by the Keras that TensorFlow uses, here"
            f" {tf.keras.Model.__module__.split('.')[0]}; received one of"
            f" {type(model).__module__}.{type(model).__name__}; make it with tf.keras, and for tf_keras set"
            " TF_USE_LEGACY_KERAS=1 before Python starts"
        )


def check_place(model: Any, replicas: Replicas) -> None:
    """Refuses a model that does not have its variables, or not on the devices of this process."""
    if not has_variables(model):
        raise BadInput(
            f"the model must have its variables; received {model.name}, which is not built; give it a keras.Input, or"
            " call it once within run.scope(): model(x[:1])"
        )
    is_outside = model.distribute_strategy is not replicas.distribution
    if is_outside or not replicas.are_made_in_scope([made_variable(v) for v in model.trainable_variables]):
        raise BadInput(
            "the model must be built inside `with run.scope():`, since each replica needs a copy of its variables;"
            f" received {model.name}, which was built outside; indent what builds it"
        )
    if getattr(model, "optimizer", None) is None:
        return
    with replicas.scope():  # where a legacy optimizer makes it now
        count = made_variable(iterations_variable(model.optimizer))
    if not replicas.are_made_in_scope([count]):
        raise BadInput(
            "the optimizer must be made inside `with run.scope():`, since each replica needs a copy of its variables;"
            f" received {type(model.optimizer).__name__}, which was made outside; indent what makes it, and"
            " model.compile(...)"
        )


def learning_rate(model: Any) -> Optional[float]:
    """Gives the user's own learning rate; None if it is a schedule."""
    rate = learning_rate_variable(model.optimizer)
    return None if rate is None else float(rate.numpy())
