"""The step: `model.fit` stays in charge, and what it calls is made to see the whole world.

Within `exact_steps` a model's train_step and test_step take elements of hpcdl's feed, and its optimizer averages
gradients over the replicas. After it the model is the plain one again.

Synopsis::

    with exact_steps(model, replicas) as hook:
        model.fit(feed(...), callbacks=[...])
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, Optional

import numpy as np
import tensorflow as tf

from hpcdl.runtime.gradients import Hook, averaged_gradients
from hpcdl.runtime.keras_edge import (
    batch_mean_variables,
    has_own_train_step,
    metric_variables,
    replica_means,
    seed_variables,
    steps_per_execution,
)
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.stopping import Wishes


@contextmanager
def exact_steps(model: Any, replicas: Replicas, wishes: Optional[Wishes] = None) -> Iterator[Hook]:
    """Makes the steps of a compiled model those of the whole world; the wishes of ranks ride in them."""
    train_step, test_step, symbolic_build = (
        model.train_step,
        model.test_step,
        getattr(model, "_symbolic_build", None),
    )
    with ExitStack() as stack:
        hook = stack.enter_context(averaged_gradients(model.optimizer, replicas, wishes))
        if replicas.per_process > 1:
            stack.enter_context(replica_means(model))

        def train(element: Any) -> Any:
            data, info = element
            hook.begin(samples=info[0])
            logs = _counted(model, train_step, data, info)
            return _averaged_logs(model, logs, info[0], replicas)

        def test(element: Any) -> Any:
            data, info = element
            return _counted(model, test_step, data, info)

        overrides: Dict[str, Any] = {"train_step": train, "test_step": test}
        if hasattr(model, "_distribute_reduction_method"):
            # What a train_step logs is a mean over all replicas already; Keras 2 would add the local ones up.
            overrides["_distribute_reduction_method"] = "first"
        if symbolic_build is not None:

            def build_from_data(iterator: Any = None, data_batch: Any = None) -> Any:
                # Keras 3 builds from an element when there is a strategy: it must see the user's part of it.
                return symbolic_build(data_batch=data_batch[0])

            overrides["_symbolic_build"] = build_from_data
        stack.enter_context(_attributes(model, overrides))
        yield hook


@contextmanager
def _attributes(model: Any, values: Dict[str, Any]) -> Iterator[None]:
    plain = {name: model.__dict__[name] for name in values if name in model.__dict__}
    try:
        for name, value in values.items():
            setattr(model, name, value)
        _forget_functions(model)
        yield
    finally:
        for name in values:
            if name in plain:
                setattr(model, name, plain[name])
            else:
                delattr(model, name)
        _forget_functions(model)


def _forget_functions(model: Any) -> None:
    """Drops the compiled functions, which hold the steps that they were made of."""
    model.train_function = model.test_function = None


def _counted(model: Any, step: Callable[[Any], Any], data: Any, info: tf.Tensor) -> Any:
    """Runs a step, and adds to the metric states what this replica's part counts for."""
    counts, share = info[1], info[2]
    before = [(v, tf.identity(v)) for v in metric_variables(model)]
    logs = step(data)
    of_batches = {id(v) for v in batch_mean_variables(model)}
    for variable, old in before:
        new = tf.convert_to_tensor(variable)
        if id(variable) in of_batches:
            new = old + (new - old) * tf.cast(share, old.dtype)
        else:
            new = tf.where(counts > 0, new, old)
        variable.assign(new)
    return logs


def _averaged_logs(model: Any, logs: Any, samples: tf.Tensor, replicas: Replicas) -> Any:
    """Averages what a train_step of the user's logs beside the metrics; Keras works those out from their states."""
    if replicas.num_replicas == 1 or not has_own_train_step(model) or not isinstance(logs, dict):
        return logs
    tensors = {name: tf.convert_to_tensor(logs[name]) for name in set(logs) - set(model.get_metrics_result())}
    own = sorted(name for name, tensor in tensors.items() if tensor.dtype.is_floating)
    if not own:
        return logs
    weight = tf.cast(samples, tensors[own[0]].dtype)
    *sums, total = replicas.sum_in_step(
        [tf.cast(tensors[name], weight.dtype) * weight for name in own] + [weight]
    )
    return {**logs, **{name: value / total for name, value in zip(own, sums)}}


@contextmanager
def first_steps_skipped(model: Any, num_steps: int) -> Iterator[None]:
    """Makes Keras count the first steps of its next fit without taking them: they were taken before a stop."""
    if not num_steps:
        yield
        return
    plain = model.make_train_function
    left = num_steps

    def make_train_function(force: bool = False) -> Any:
        plain(force=force)
        function = model.train_function

        def train_function(iterator: Any) -> Any:
            nonlocal left
            if left <= 0:
                return function(iterator)
            left -= steps_per_execution(model)
            return {}

        model.train_function = train_function
        return train_function

    with _attributes(model, {"make_train_function": make_train_function}):
        yield


def split_seeds(model: Any, seed: int, replicas: Replicas, since_step: int = 0) -> None:
    """Gives each replica random streams of its own: a pure function of seed, replica, and where the run goes on.

    Args:
        model: Built.
        seed: Of the run.
        replicas: Of the run; replica 0 keeps Keras' streams in a run from its beginning.
        since_step: Steps that the run has done, on another number of replicas.
    """
    for k, variable in enumerate(seed_variables(model)):
        for r, copy in enumerate(replicas.copies(variable)):
            replica = replicas.first + r
            if replica > 0 or since_step > 0:
                value = copy.numpy()
                key = (
                    0 if value.size == 2 else -1
                )  # Keras 3: (seed, counter); TensorFlow: (counter, counter, key)
                value[key] = np.random.SeedSequence([seed, replica, k, since_step]).generate_state(1)[0]
                copy.assign(value)
