"""What `Run.fit` refuses: models with which the steps would not be exact, or not be possible.

Every message has the rule, what was received, and the way out.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.gradients import check_plain
from hpcdl.runtime.keras_edge import (
    has_variables,
    iterations_variable,
    made_variable,
    mixes_samples,
)
from hpcdl.runtime.normalization import synchronized_layers
from hpcdl.runtime.replicas import Replicas


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
