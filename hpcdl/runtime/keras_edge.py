"""What differs between the generations of Keras, in one place; private names of Keras appear here and nowhere else.

A model says which Keras made it: Keras 3 (``keras``), or Keras 2 (``keras`` with TensorFlow up to 2.15, and
``tf_keras``).

Synopsis::

    for variable in metric_variables(model):
        ...
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import tensorflow as tf


def plain_variable(variable: Any) -> Any:
    """Gives the TensorFlow variable behind a variable of Keras 3, or the variable itself."""
    is_keras_3 = hasattr(variable, "value") and not callable(variable.value)
    return variable.value if is_keras_3 else variable


def made_variable(variable: Any) -> Any:
    """Gives the variable that TensorFlow made, behind Keras 2's wrapper of mixed precision too."""
    plain = plain_variable(variable)
    return getattr(plain, "_variable", plain)


def metric_variables(model: Any) -> List[Any]:
    """Lists the states of a model's metrics, each once."""
    return _each_once(v for metric in model.metrics for v in metric.variables)


def build_metrics(model: Any, rows: Any) -> None:
    """Makes Keras give all metrics their variables now: it does so in the first step otherwise.

    Args:
        model: Compiled, with its variables.
        rows: Some rows of ``(x, y, ...)`` of the data, as arrays; one of them is looked at.
    """
    rows = tf.nest.map_structure(lambda array: tf.constant(array[:1]), rows)
    if hasattr(model, "_compile_loss"):
        model._symbolic_build(data_batch=rows)
        return
    containers = [getattr(model, name, None) for name in ("compiled_loss", "compiled_metrics")]
    if not any(c is not None and not c._built for c in containers):
        return
    predicted = model(rows[0], training=False)
    losses, metrics = containers
    if not losses._built:
        losses.build(predicted)
    if metrics is not None and not metrics._built:
        metrics.build(predicted, rows[1] if len(rows) > 1 else None)


def is_mean(metric: Any) -> bool:
    """Says whether a metric is Keras' Mean, which may be given one number for a whole batch."""
    means = [base for base in type(metric).__mro__ if base.__name__ == "Mean"]
    return bool(means) and type(metric).update_state is means[0].update_state


def optimizer_variables(optimizer: Any) -> List[Any]:
    """Lists the variables of an optimizer, with its loss scale.

    Keras 3 has a property, Keras 2 a method or a callable list, in which a dynamic loss scale is not.
    """
    variables = optimizer.variables
    listed = list(variables() if callable(variables) else variables)
    scale = getattr(optimizer, "_loss_scale", None)
    listed += (
        [v for v in vars(scale).values() if isinstance(v, tf.Variable)] if hasattr(scale, "__dict__") else []
    )
    return _each_once(listed)


def seed_variables(model: Any) -> List[Any]:
    """Lists the states of the model's random generators."""
    if hasattr(model, "_flatten_layers") and not hasattr(tf.keras, "ops"):
        return _generators(model)
    return _each_once(v for v in model.variables if "seed_generator" in v.name)


def _generators(model: Any) -> List[Any]:
    """Lists the states of Keras 2's generators; `init` switched TensorFlow's on, which have a state."""
    states = []
    for layer in model._flatten_layers():
        generator = getattr(layer, "_random_generator", None)
        if generator is None:
            continue
        if hasattr(generator, "_maybe_init"):
            generator._maybe_init()  # Keras makes it at the first call otherwise, inside a graph
        if getattr(generator, "_generator", None) is not None:
            states.append(generator._generator.state)
    return states


def own_variables(model: Any) -> List[Any]:
    """Lists the variables that layers update by themselves, as BatchNormalization does."""
    others = {id(v) for v in seed_variables(model)} | {id(v) for v in metric_variables(model)}
    return [v for v in _each_once(model.non_trainable_variables) if id(v) not in others]


def non_trainable_variables(model: Any) -> List[Any]:
    """Lists those of a layer's `own_variables` that have a mean."""
    return [v for v in own_variables(model) if v.dtype.is_floating]


def synchronized_variables(model: Any) -> List[Any]:
    """Lists what all replicas hold alike after each step: trainable weights and the optimizer, with its rate."""
    rate = learning_rate_variable(model.optimizer)  # which Keras 2 does not list
    rates = [] if rate is None else [rate]
    return _each_once([*model.trainable_variables, *optimizer_variables(model.optimizer), *rates])


def count_steps_from(model: Any, step: int) -> None:
    """Makes Keras 2's own counter of steps, which TensorBoard shows, go on from a step; Keras 3 has none."""
    counter = getattr(model, "_train_counter", None)
    if counter is not None:
        counter.assign(step)


def _each_once(variables: Any) -> List[Any]:
    listed: Dict[int, Any] = {}
    for variable in variables:
        plain = plain_variable(variable)
        listed[id(plain)] = plain
    return list(listed.values())


def has_own_train_step(model: Any) -> bool:
    """Says whether the model's class has a train_step that is not Keras' own."""
    module = type(model).train_step.__module__
    return not module.startswith(("keras.", "tf_keras."))


def is_legacy(optimizer: Any) -> bool:
    """Says whether this is one of ``tf.keras.optimizers.legacy``, Keras' optimizers until 2.10."""
    return hasattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_aggregator")


def is_keras_3(optimizer: Any) -> bool:
    """Says whether this is an optimizer of Keras 3."""
    return hasattr(optimizer, "apply")


def steps_per_execution(model: Any) -> int:
    """Gives how many steps Keras runs in one call: a number in Keras 3, in Keras 2 a variable or nothing."""
    steps = getattr(model, "_steps_per_execution", None)
    if steps is None:
        return int(getattr(model, "steps_per_execution", None) or 1)
    return int(steps.numpy()) if hasattr(steps, "numpy") else int(steps)


def one_step_per_execution(model: Any) -> Dict[str, Any]:
    """Gives the attributes with which ``model.predict`` reads no step beyond the last one; Keras 2 never does."""
    return {} if hasattr(model, "_steps_per_execution") else {"steps_per_execution": 1}


def compiles_by_choice_of_keras(model: Any) -> bool:
    """Says whether Keras 3 lets XLA compile this model by itself, on a GPU; it does not keep what the user said."""
    choose = getattr(model, "_resolve_auto_jit_compile", None)
    return choose is not None and bool(choose())


def learning_rate_variable(optimizer: Any) -> Optional[Any]:
    """Gives the variable that holds the learning rate; None if it is a schedule."""
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer
    rate = inner._get_hyper("learning_rate") if is_legacy(optimizer) else inner._learning_rate
    variable = plain_variable(rate)
    return variable if hasattr(variable, "assign") else None


def iterations(optimizer: Any) -> int:
    """Gives the number of updates that an optimizer has made."""
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer
    return int(inner.iterations.numpy())


def has_velocities(optimizer: Any) -> bool:
    """Says whether this is SGD with momentum, whose velocities contain the learning rate."""
    if not any(base.__name__ == "SGD" for base in type(optimizer).__mro__):
        return False
    return bool(optimizer._momentum if is_legacy(optimizer) else optimizer.momentum)


def velocity(optimizer: Any, variable: Any) -> Any:
    """Gives SGD's velocity of a variable."""
    if is_legacy(optimizer):
        return optimizer.get_slot(variable, "momentum")
    if is_keras_3(optimizer):
        return plain_variable(optimizer.momentums[optimizer._get_variable_index(variable)])
    return optimizer.momentums[optimizer._index_dict[optimizer._var_key(variable)]]


def build_optimizer(model: Any) -> None:
    """Makes the optimizer's variables now, so that they can be broadcast before the first step."""
    optimizer = model.optimizer
    if is_legacy(optimizer):
        getattr(optimizer, "inner_optimizer", optimizer)._create_all_weights(model.trainable_variables)
    elif not getattr(optimizer, "built", False):
        optimizer.build(model.trainable_variables)


def seeds_of_shuffles(dataset: Any) -> List[Any]:
    """Lists the two seeds of each shuffle that a data set is made of: none of the two where nobody gave a seed.

    Those within functions, such as that of an interleave, are not seen.
    """
    seeds, to_see = [], [dataset]
    while to_see:
        seen = to_see.pop()
        to_see += seen._inputs()
        if "Shuffle" in type(seen).__name__ and hasattr(seen, "_seed2"):
            seeds.append((int(seen._seed), int(seen._seed2)))
    return seeds
