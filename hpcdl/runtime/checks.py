"""What `Run.fit` refuses: models and arguments with which the steps would not be exact, or not be possible.

Every message has the rule, what was received, and the way out.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.gradients import check_plain
from hpcdl.runtime.keras_edge import learning_rate_variable, made_variable
from hpcdl.runtime.normalization import synchronized_layers
from hpcdl.runtime.replicas import Replicas

_MEANS = ("sum_over_batch_size", "auto")


def nest_of_arrays(data: Any) -> Tuple[Any, int]:
    """Makes arrays of ``(x, y, sample_weight)``, floating ones in Keras' floatx, as Keras does; Nones fall away.

    Returns:
        The nest, and its number of rows.
    """
    while data and data[-1] is None:
        data = data[:-1]

    def array(value: Any) -> np.ndarray:
        made = np.asarray(value)
        if made.dtype == object or made.ndim == 0:
            raise BadInput(
                f"data must be arrays of rows; received {type(value).__name__}; pass NumPy arrays (or lists or dicts"
                " of them) for x, y and sample_weight"
            )
        return made.astype(tf.keras.backend.floatx()) if made.dtype.kind == "f" else made

    arrays = tf.nest.map_structure(array, data)
    rows = [len(a) for a in tf.nest.flatten(arrays)]
    if not rows or len(set(rows)) > 1 or rows[0] == 0:
        raise BadInput(f"all arrays must have the same number of rows, at least 1; received {rows}")
    return arrays, rows[0]


def with_class_weight(class_weight: Optional[Mapping[int, float]], y: Any, sample_weight: Any) -> Any:
    """Folds class weights into the sample weights, as Keras does.

    Args:
        class_weight: Weight of each class; a class that is not named has 1.
        y: (N,) class numbers, (N, 1) likewise, or (N, classes) one-hot.
        sample_weight: (N,) weights, or None.
    """
    if class_weight is None:
        return sample_weight
    classes = np.asarray(y)
    if classes.dtype == object or classes.ndim not in (1, 2):
        raise BadInput(
            f"class_weight needs one output, with class numbers or one-hot rows; received y of shape {classes.shape};"
            " pass sample_weight instead"
        )
    if classes.ndim == 2:
        classes = classes[:, 0] if classes.shape[1] == 1 else classes.argmax(-1)
    numbers, where = np.unique(classes, return_inverse=True)
    weights = np.array([class_weight.get(int(c), 1.0) for c in numbers])[where.reshape(-1)]
    return weights if sample_weight is None else weights * np.asarray(sample_weight)


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
    if not model.built:
        raise BadInput(
            f"the model must have its variables; received {model.name}, which is not built; give it a"
            " keras.Input, or call model.build(input_shape)"
        )
    is_outside = model.distribute_strategy is not replicas.distribution
    if is_outside or not replicas.are_made_in_scope([made_variable(v) for v in model.trainable_variables]):
        raise BadInput(
            "the model must be built inside `with run.scope():`, since each replica needs a copy of its variables;"
            f" received {model.name}, which was built outside; indent what builds it"
        )


def learning_rate(model: Any) -> Optional[float]:
    """Gives the user's own learning rate; None if it is a schedule."""
    rate = learning_rate_variable(model.optimizer)
    return None if rate is None else float(rate.numpy())
