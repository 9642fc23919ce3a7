"""What differs between the generations of Keras, in one place.

Private names of Keras appear here, and in the modules that put something of their own in their place;
``_flatten_layers`` wherever layers are listed.

A model says which Keras made it: Keras 3 (``keras``), or Keras 2 (``keras`` with TensorFlow up to 2.15, and
``tf_keras``).

Synopsis::

    for variable in metric_variables(model):
        ...
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import tensorflow as tf

#: Under which Keras 3 keeps the generator that it draws from where it is given no seed.
_GLOBAL_SEED = "global_seed_generator"


def plain_variable(variable: Any) -> Any:
    """Gives the TensorFlow variable behind a variable of Keras 3, or the variable itself."""
    is_keras_3 = hasattr(variable, "value") and not callable(variable.value)
    return variable.value if is_keras_3 else variable


def made_variable(variable: Any) -> Any:
    """Gives the variable that TensorFlow made, behind Keras 2's wrapper of mixed precision too."""
    plain = plain_variable(variable)
    return getattr(plain, "_variable", plain)


def has_variables(model: Any) -> bool:
    """Says whether a model has made its variables.

    Keras 3 takes the ``build()`` of a class of the user's as done where it has made those of no layer. A layer that
    the class does not use has none after a call either.
    """
    was_called = getattr(model, "_called", True)
    return bool(model.built and (was_called or all(layer.built for layer in model.layers)))


def metric_variables(model: Any) -> List[Any]:
    """Lists the states of a model's metrics, each once."""
    return _each_once(v for metric in model.metrics for v in metric.variables)


def chooser_of_logs(model: Any) -> str:
    """Names the method by which Keras chooses between what a step has logged and the results of the metrics."""
    name = "_get_metrics_result_or_logs"  # of Keras 3
    return name if hasattr(model, name) else "_validate_and_get_metrics_result"


def build_metrics(model: Any, rows: Any) -> None:
    """Makes Keras give all metrics their variables now: it does so in the first step otherwise.

    Args:
        model: Compiled, with its variables.
        rows: Some rows of ``(x, y, ...)`` of the data, as arrays; one of them is looked at.
    """
    rows = tf.nest.map_structure(lambda array: tf.constant(array[:1]), rows)
    if hasattr(model, "_compile_loss"):
        if len(rows) < 2 and has_own_train_step(model):  # which knows what the loss and the metrics compare
            return
        model._symbolic_build(data_batch=rows)
        return
    containers: List[Any] = [getattr(model, name, None) for name in ("compiled_loss", "compiled_metrics")]
    if not any(c is not None and not c._built for c in containers):
        return
    predicted = model(rows[0], training=False)
    losses, metrics = containers
    if not losses._built:
        losses.build(predicted)
    if metrics is not None and not metrics._built:
        y = rows[1] if len(rows) > 1 else None
        metrics.build(predicted, y)
        if not all(metric.built and getattr(metric, "_built", True) for metric in model.metrics):
            # Such as F1Score, which learns the shape of its states from what it sees.
            tf.distribute.get_strategy().run(metrics.update_state, args=(y, predicted))
            metrics.reset_state()


def is_mean(metric: Any) -> bool:
    """Says whether a metric is Keras' Mean, which may be given one number for a whole batch."""
    means: List[Any] = [base for base in type(metric).__mro__ if base.__name__ == "Mean"]
    return bool(means) and type(metric).update_state is means[0].update_state


def loss_weights(model: Any) -> Any:
    """Gives the weights of the losses as compile() was told them; None: it was told none."""
    losses = getattr(model, "_compile_loss" if hasattr(model, "_compile_loss") else "compiled_loss", None)
    return getattr(losses, "_user_loss_weights", None)


def optimizer_variables(optimizer: Any) -> List[Any]:
    """Lists the variables of an optimizer, with its loss scale.

    Keras 3 has a property, Keras 2 a method or a callable list, in which a dynamic loss scale is not, nor what an
    optimizer makes beside its slots, such as the product of momenta of Nadam. Of the rate see `learning_rate_variable`.
    """
    variables = optimizer.variables
    listed = list(variables() if callable(variables) else variables)
    for name, value in vars(inner_of(optimizer)).items():
        if isinstance(value, tf.Variable) and not name.endswith("learning_rate"):
            listed.append(value)
    scale = getattr(optimizer, "_loss_scale", None)
    listed += (
        [v for v in vars(scale).values() if isinstance(v, tf.Variable)] if hasattr(scale, "__dict__") else []
    )
    return _each_once(listed)


def seed_variables(model: Any) -> List[Any]:
    """Lists the states of the random generators that a model draws from.

    They are those of its layers, and under Keras 3 that of Keras itself (`build_global_seed`), from which
    ``keras.random`` draws where it is given no seed.
    """
    of_tensorflow = [
        value.state
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        if isinstance(value, tf.random.Generator)
    ]
    if _has_keras_2_generators(model):
        return _each_once([*_generators(model), *of_tensorflow])
    of_keras = [v for v in model.variables if "seed_generator" in v.name]
    module = _seed_generator_module()
    shared = module.global_state.get_global_attribute(_GLOBAL_SEED)
    return _each_once([*of_keras, *([] if shared is None else [shared.state]), *of_tensorflow])


def set_seeds(seed: int) -> None:
    """Seeds all generators, and lets the random layers of Keras 2 draw from such whose state can be kept."""
    tf.keras.utils.set_random_seed(seed)
    if has_keras_3():
        # Before 3.13 Keras went on drawing from the one that it had.
        _seed_generator_module().global_state.set_global_attribute(_GLOBAL_SEED, None)
    else:
        tf.keras.backend.experimental.enable_tf_random_generator()


def set_precision(name: str) -> None:
    """Makes ``float32``, ``float64``, or a mixed policy, that of the layers that are made from now on."""
    if not name.startswith("mixed_"):
        tf.keras.backend.set_floatx(name)
    # Also else: Keras 3 keeps the policy of the first layer, which has been made in another.
    tf.keras.mixed_precision.set_global_policy(name)


def build_global_seed(model: Any) -> None:
    """Makes the state from which Keras 3 draws where it is given no seed; called in the scope of the replicas."""
    if _has_keras_2_generators(model):
        return
    module, distribution = _seed_generator_module(), tf.distribute.get_strategy()
    state = plain_variable(module.global_seed_generator().state)
    if len(distribution.experimental_local_results(state)) < distribution.num_replicas_in_sync:
        # The script has drawn from it outside of the scope; each replica needs one of its own.
        module.global_state.set_global_attribute(_GLOBAL_SEED, None)
        module.global_seed_generator().state.assign(state.numpy())


def global_seed_for_threads(model: Any) -> Callable[[], None]:
    """Gives what lets a thread draw from the state of `build_global_seed`: Keras 3 has one of its own in each."""
    if _has_keras_2_generators(model):
        return lambda: None
    module = _seed_generator_module()
    state, name = module.global_state, _GLOBAL_SEED
    generator = state.get_global_attribute(name)
    return lambda: state.set_global_attribute(name, generator)


def _has_keras_2_generators(model: Any) -> bool:
    return hasattr(model, "_flatten_layers") and not has_keras_3()


def _seed_generator_module() -> Any:
    return importlib.import_module(tf.keras.random.SeedGenerator.__module__)


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


def has_own(method: str, model: Any) -> bool:
    """Says whether the model's class has a method, such as train_step, that is not Keras' own."""
    return not _is_of_keras(getattr(type(model), method))


def has_own_train_step(model: Any) -> bool:
    """Says whether the model's class has a train_step that is not Keras' own."""
    return has_own("train_step", model)


def _is_of_keras(thing: Any) -> bool:
    return thing.__module__.startswith(("keras.", "tf_keras."))


def mixes_samples(loss: Any) -> bool:
    """Says whether a loss is one of Keras' that is no mean over samples: pairs of them, overlaps over a whole batch."""
    if isinstance(loss, str) or hasattr(loss, "__name__"):
        is_known = isinstance(loss, str) or _is_of_keras(loss)
        return is_known and getattr(loss, "__name__", loss).lower() in ("circle", "dice", "tversky")
    kinds = {base.__name__ for base in type(loss).__mro__ if _is_of_keras(base)}
    if kinds & {"Dice", "Tversky"}:
        axes = loss.get_config()["axis"]
        return axes is None or 0 in tf.nest.flatten(axes)
    return "Circle" in kinds


def inner_of(optimizer: Any) -> Any:
    """Gives the optimizer that one with a loss scale wraps; any other one itself."""
    return getattr(optimizer, "inner_optimizer", None) or optimizer


def is_legacy(optimizer: Any) -> bool:
    """Says whether this is one of ``tf.keras.optimizers.legacy``, Keras' optimizers until 2.10."""
    return hasattr(inner_of(optimizer), "gradient_aggregator")


def package_of(thing: Any) -> str:
    """Names the package that defines a class, a function, or the class of an object; "" if nothing does."""
    return str(getattr(thing, "__module__", "")).split(".")[0]


def is_of_keras(thing: Any) -> bool:
    """Says whether a class, a function or an object is of Keras or TensorFlow, and not of the user."""
    return package_of(thing) in ("keras", "tf_keras", "tensorflow")


def has_keras_3() -> bool:
    """Says whether tf.keras is Keras 3."""
    return hasattr(tf.keras, "ops")


def is_keras_3(optimizer: Any) -> bool:
    """Says whether this is an optimizer of Keras 3."""
    return hasattr(optimizer, "apply")


def update_of_all_optimizers(optimizer: Any) -> Tuple[type, str]:
    """Gives the class, and the name of its method, by which every optimizer of this Keras updates variables."""
    methods = {
        "BaseOptimizer": "apply",
        "_BaseOptimizer": "apply_gradients",
        "OptimizerV2": "apply_gradients",
    }
    base = next(base for base in type(inner_of(optimizer)).__mro__ if base.__name__ in methods)
    return base, methods[base.__name__]


def layers_with_added_losses(model: Any) -> List[str]:
    """Names the layers that have called add_loss() in the forward pass that is under way or the last one."""
    return [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "_losses", None) or getattr(layer, "_eager_losses", None)
    ]


def steps_per_execution(model: Any) -> int:
    """Gives how many steps Keras runs in one call: a number in Keras 3, in Keras 2 a variable or nothing."""
    steps = getattr(model, "_steps_per_execution", None)
    if steps is None:
        return int(getattr(model, "steps_per_execution", None) or 1)
    return int(steps.numpy()) if hasattr(steps, "numpy") else int(steps)


@contextmanager
def next_execution_of(model: Any, steps: int, make_function: Callable[..., Any]) -> Iterator[Any]:
    """Gives a train function that takes so many steps in one execution, instead of as many as the model's.

    Args:
        model: In training.
        steps: At most as many as it was compiled with.
        make_function: Its plain ``make_train_function``.
    """
    variable = getattr(model, "_steps_per_execution", None)
    before, function = steps_per_execution(model), model.train_function
    try:
        if variable is not None:
            variable.assign(steps)
        else:  # Keras 3 looks the number up when it traces a function
            model.steps_per_execution = steps
        make_function(force=True)
        yield model.train_function
    finally:
        model.train_function = function
        if variable is not None:
            variable.assign(before)
        else:
            model.steps_per_execution = before


def one_step_per_execution(model: Any) -> Dict[str, Any]:
    """Gives the attributes with which ``model.predict`` reads no step beyond the last one; Keras 2 never does."""
    return {} if hasattr(model, "_steps_per_execution") else {"steps_per_execution": 1}


def forget_validation(model: Any) -> None:
    """Lets the next fit read its own validation data: Keras 2 goes on with the reader that a failed fit has left."""
    if getattr(model, "_eval_data_handler", None) is not None:
        model._eval_data_handler = None


def compiles_by_choice_of_keras(model: Any) -> bool:
    """Says whether Keras 3 lets XLA compile this model by itself, on a GPU; it does not keep what the user said."""
    choose = getattr(model, "_resolve_auto_jit_compile", None)
    return choose is not None and bool(choose())


def learning_rate_variable(optimizer: Any) -> Optional[Any]:
    """Gives the variable that holds the learning rate; None if it is a schedule."""
    inner = inner_of(optimizer)
    rate = inner._get_hyper("learning_rate") if is_legacy(optimizer) else inner._learning_rate
    variable = plain_variable(rate)
    return variable if hasattr(variable, "assign") else None


def learning_rate(optimizer: Any) -> Optional[float]:
    """Gives the user's own learning rate; None if it is a schedule."""
    rate = learning_rate_variable(optimizer)
    return None if rate is None else float(rate.numpy())


def iterations(optimizer: Any) -> int:
    """Gives the number of updates that an optimizer has made."""
    return int(inner_of(optimizer).iterations.numpy())


def iterations_variable(optimizer: Any) -> Any:
    """Gives the variable in which an optimizer counts its steps: the first that it has."""
    inner = inner_of(optimizer)
    # A legacy optimizer makes it only when asked; one of Keras 3 that accumulates gives a quotient of it instead.
    given = inner.iterations
    return getattr(inner, "_iterations", given)


def has_velocities(optimizer: Any) -> bool:
    """Says whether this is SGD or RMSprop with momentum, whose velocities contain the learning rate."""
    if not any(base.__name__ in ("SGD", "RMSprop") for base in type(optimizer).__mro__):
        return False
    return bool(optimizer._momentum if is_legacy(optimizer) else optimizer.momentum)


def velocity(optimizer: Any, variable: Any) -> Any:
    """Gives the velocity of a variable; Keras calls it momentum, and other things velocities."""
    if is_legacy(optimizer):
        return optimizer.get_slot(variable, "momentum")
    velocities = getattr(optimizer, "momentums", None) or optimizer._momentums
    if is_keras_3(optimizer):
        return plain_variable(velocities[optimizer._get_variable_index(variable)])
    return velocities[optimizer._index_dict[optimizer._var_key(variable)]]


def build_optimizer(model: Any) -> None:
    """Makes the optimizer's variables now, so that they can be broadcast before the first step."""
    optimizer = model.optimizer
    if is_legacy(optimizer):
        inner_of(optimizer)._create_all_weights(model.trainable_variables)
    elif not getattr(optimizer, "built", False):
        optimizer.build(model.trainable_variables)
