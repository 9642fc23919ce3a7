"""The step: `model.fit` stays in charge, and what it calls is made to see the whole world.

Within `exact_steps` a model's train_step and test_step take elements of hpcdl's feed, ``(data, [rows, counts])``, its
optimizer averages gradients over the ranks, and its metric states and moving averages can be summed. After it the
model is the plain one again.

Synopsis::

    with exact_steps(model, processes) as hook:
        model.fit(feed(...), callbacks=[...])
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

import numpy as np
import tensorflow as tf

from hpcdl.runtime.gradients import Hook, averaged_gradients


@contextmanager
def exact_steps(model: Any, processes: Any) -> Iterator[Hook]:
    """Makes the steps of a compiled model those of the whole world."""
    plain = {name: model.__dict__.get(name) for name in ("train_step", "test_step")}
    train_step, test_step = model.train_step, model.test_step
    with averaged_gradients(model.optimizer, processes) as hook:

        def train(element: Any) -> Any:
            data, info = element
            hook.samples = info[0]
            return _counted(model, train_step, data, info[1])

        def test(element: Any) -> Any:
            data, info = element
            return _counted(model, test_step, data, info[1])

        try:
            model.train_step, model.test_step = train, test
            _forget_functions(model)
            yield hook
        finally:
            for name, value in plain.items():
                if value is None:
                    delattr(model, name)
                else:
                    setattr(model, name, value)
            _forget_functions(model)


def _counted(model: Any, step: Any, data: Any, counts: tf.Tensor) -> Any:
    """Runs a step whose part is left out of the metrics where ``counts`` is 0."""
    before = [(v, tf.identity(v)) for v in metric_variables(model)]
    logs = step(data)
    for variable, old in before:
        variable.assign(tf.where(counts > 0, tf.convert_to_tensor(variable), old))
    return logs


def _forget_functions(model: Any) -> None:
    """Drops the compiled functions, which hold the steps that they were made of."""
    model.train_function = model.test_function = None


def plain_variable(variable: Any) -> Any:
    """Gives the tf.Variable behind a variable of Keras 3, or the variable itself."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def metric_variables(model: Any) -> List[Any]:
    """Lists the states of a model's metrics, each once."""
    states: Dict[int, Any] = {}
    for metric in model.metrics:
        for variable in metric.variables:
            states[id(variable)] = plain_variable(variable)
    return list(states.values())


def optimizer_variables(optimizer: Any) -> List[Any]:
    """Lists the variables of an optimizer: Keras 3 has a property, Keras 2 a method or a callable list."""
    variables = optimizer.variables
    return [plain_variable(v) for v in (variables() if callable(variables) else variables)]


def seed_variables(model: Any) -> List[Any]:
    """Lists the states of the seed generators of Keras 3."""
    return [plain_variable(v) for v in model.variables if "seed_generator" in v.name]


def shared_variables(model: Any) -> List[Any]:
    """Lists what all ranks hold alike from the first step on: weights, averages and optimizer, not seeds."""
    seeds = {id(v) for v in seed_variables(model)}
    listed: Dict[int, Any] = {}
    for variable in [plain_variable(v) for v in model.variables] + optimizer_variables(model.optimizer):
        if id(variable) not in seeds:
            listed[id(variable)] = variable
    return list(listed.values())


def moving_averages(model: Any) -> List[Any]:
    """Lists the floating-point variables that layers update by themselves, as BatchNormalization does."""
    seeds = {id(v) for v in seed_variables(model)}
    metrics = {id(v) for v in metric_variables(model)}
    variables = [plain_variable(v) for v in model.non_trainable_variables]
    return [v for v in variables if v.dtype.is_floating and id(v) not in seeds | metrics]


def build_optimizer(model: Any) -> None:
    """Makes the optimizer's variables now, so that they can be broadcast before the first step."""
    optimizer = model.optimizer
    if not getattr(optimizer, "built", False):
        optimizer.build(model.trainable_variables)


def split_seeds(model: Any, seed: int, replica: int) -> None:
    """Gives a replica random streams of its own, a pure function of seed and replica; replica 0 keeps Keras'."""
    if replica == 0:
        return
    for k, state in enumerate(seed_variables(model)):
        value = state.numpy()
        value[0] = np.random.SeedSequence([seed, replica, k]).generate_state(1)[0]
        state.assign(value)
