"""What `Run.fit` refuses: models and arguments with which the steps would not be exact, or not be possible.

Every message has the rule, what was received, and the way out.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.gradients import check_plain
from hpcdl.runtime.keras_edge import learning_rate_variable, steps_per_execution
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
    if getattr(model, "optimizer", None) is None:
        raise BadInput(
            "the model must be compiled; received one without an optimizer; call model.compile(...) first"
        )
    check_plain(model.optimizer)
    if not model.built:
        raise BadInput(
            f"the model must have its variables; received {model.name}, which is not built; give it a"
            " keras.Input, or call model.build(input_shape)"
        )
    _check_execution(model)
    if replicas.per_process > 1 and model.distribute_strategy is not replicas.distribution:
        raise BadInput(
            "the model must be built inside `with run.scope():`, since each replica needs a copy of its variables;"
            f" received {model.name}, which was built outside"
        )
    if replicas.num_replicas == 1:
        return
    if getattr(model, "jit_compile", False) is True:
        raise BadInput(
            "the exchange between replicas cannot be compiled by XLA; received a model compiled with jit_compile=True;"
            " pass jit_compile=False to compile()"
        )
    for loss in tf.nest.flatten(model.loss):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in _MEANS:
            raise BadInput(
                f"a loss must be a mean over the samples, so that the means of ranks have a mean; received"
                f" {type(loss).__name__} with reduction={reduction!r}; use reduction='sum_over_batch_size'"
            )
    for layer in model._flatten_layers():
        if getattr(layer, "mask_zero", False) or isinstance(layer, tf.keras.layers.Masking):
            raise BadInput(
                "a loss over masked samples has a denominator of its own on each rank, which is not supported yet;"
                f" received layer {layer.name}; take the mask away, or train in one process"
            )
        if getattr(layer, "synchronized", False):
            raise BadInput(
                f"synchronized BatchNormalization is not supported yet; received layer {layer.name};"
                " use synchronized=False"
            )


def _check_execution(model: Any) -> None:
    if steps_per_execution(model) != 1:
        raise BadInput("steps_per_execution other than 1 is not supported yet; leave it out of compile()")
    optimizer = getattr(model.optimizer, "inner_optimizer", None) or model.optimizer
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise BadInput(
            "gradient_accumulation_steps is not supported yet; use a larger per_replica_batch_size instead"
        )


def learning_rate(model: Any) -> Optional[float]:
    """Gives the user's own learning rate; None if it is a schedule."""
    rate = learning_rate_variable(model.optimizer)
    return None if rate is None else float(rate.numpy())
