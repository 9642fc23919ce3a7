"""The step: `model.fit` stays in charge, and what it calls is made to see the whole world.

Within `exact_steps` a model's train_step and test_step take elements of hpcdl's feed, and its optimizer averages
gradients over the replicas. After it the model is the plain one again.

Synopsis::

    with exact_steps(model, replicas, overrides={}) as hook:
        model.fit(feed(...), callbacks=[...])
    with exact_tests(model, Parts(replicas), replicas, overrides={}):
        model.evaluate(feed(...), callbacks=[MetricSums(...)])
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, Mapping, Optional, Set

import numpy as np
import tensorflow as tf

from hpcdl.runtime.gradients import Hook, averaged_gradients
from hpcdl.runtime.keras_edge import (
    global_seed_for_threads,
    has_own,
    has_own_train_step,
    is_mean,
    layers_with_added_losses,
    metric_variables,
    next_execution_of,
    seed_variables,
    steps_per_execution,
)
from hpcdl.runtime.losses import global_losses
from hpcdl.runtime.normalization import synchronized_normalization
from hpcdl.runtime.overriding import attributes
from hpcdl.runtime.parts import Element, Parts
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.stopping import Wishes
from hpcdl.runtime.updates import updates_across_replicas


@contextmanager
def exact_steps(
    model: Any,
    replicas: Replicas,
    overrides: Mapping[str, Any],
    wishes: Optional[Wishes] = None,
    on_first_trace: Callable[[tf.Graph], None] = lambda graph: None,
) -> Iterator[Hook]:
    """Makes the steps of a compiled model those of the whole world.

    Args:
        model: Compiled.
        replicas: Of the run.
        overrides: Other attributes of the model meanwhile.
        wishes: Of all ranks; they ride in the steps.
        on_first_trace: Is told the graph that holds the first train_step, if it is not run eagerly.
    """
    train_step, use_global_seed = model.train_step, global_seed_for_threads(model)
    parts = Parts(replicas)
    with ExitStack() as stack:
        hook = stack.enter_context(averaged_gradients(model.optimizer, parts, wishes))
        stack.enter_context(updates_across_replicas(model.optimizer, replicas))
        to_tell = [on_first_trace]

        def train(element: Element) -> Any:
            means.reach(model)
            use_global_seed()
            with parts.step(element.info):
                logs = _averaged_logs(model, _counted(model, train_step, element.rows, parts), parts)
                parts.taken_as_means.update(
                    f"add_loss() of {name}" for name in layers_with_added_losses(model)
                )
                parts.taken_as_means.update(
                    f"{method} of {type(model).__name__}"
                    for method in ("compute_loss", "train_step")
                    if has_own(method, model)
                )
            if to_tell and not tf.executing_eagerly():
                to_tell.pop()(tf.compat.v1.get_default_graph())
            return logs

        overrides = {**overrides, "train_step": train}
        if hasattr(model, "_distribute_reduction_method"):
            # What a train_step logs is a mean over all replicas already; Keras 2 would add the local ones up.
            overrides["_distribute_reduction_method"] = "first"
        means = stack.enter_context(exact_tests(model, parts, replicas, overrides))
        yield hook


@contextmanager
def exact_tests(
    model: Any, parts: Parts, replicas: Replicas, overrides: Mapping[str, Any]
) -> Iterator[Means]:
    """Makes the test steps of a compiled model those of the whole world; yields what reaches its Mean metrics.

    Args:
        model: Compiled, with its metrics built.
        parts: Of the replicas.
        replicas: Of the run.
        overrides: Other attributes of the model meanwhile.
    """
    test_step, use_global_seed = model.test_step, global_seed_for_threads(model)
    # `build_metrics` has done it. Keras 3 would do it again from an element, whose parts it adds up: equal ones only.
    build = "_maybe_symbolic_build"
    overrides = {**overrides, **({build: _built_already} if hasattr(model, build) else {})}
    with ExitStack() as stack:
        if replicas.num_replicas > 1:
            stack.enter_context(global_losses(model, parts, replicas))
        # On one replica too: there Keras 2.12's own fails in float64.
        stack.enter_context(synchronized_normalization(model, parts))
        means = Means(parts, stack)

        def test(data: Any) -> Any:
            if not isinstance(data, Element):  # of a callback's own model.evaluate: the plain step
                return test_step(data)
            means.reach(model)
            use_global_seed()
            with parts.step(data.info):
                return _counted(model, test_step, data.rows, parts)

        stack.enter_context(_with_steps(model, **{**overrides, "test_step": test}))
        yield means


@contextmanager
def numbered_predictions(model: Any, parts: Parts, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Makes ``model.predict`` give ``(outputs, the number of each row in the data set)``."""
    predict_step = model.predict_step

    def predict(element: Element) -> Any:
        with parts.step(element.info):
            outputs = predict_step(element.rows)
        size = tf.shape(tf.nest.flatten(outputs)[0], out_type=tf.int64)[0]
        return outputs, tf.cast(element.info[3], tf.int64) + tf.range(size)

    with ExitStack() as stack:
        stack.enter_context(synchronized_normalization(model, parts))
        stack.enter_context(_with_steps(model, **{**overrides, "predict_step": predict}))
        yield


def _built_already(*args: Any, **kwargs: Any) -> None:
    """Does nothing."""


@contextmanager
def _with_steps(model: Any, **overrides: Any) -> Iterator[None]:
    """Gives a model other steps; the compiled functions, which hold the steps that they were made of, go with them.

    They come back afterwards: a fit that is under way, whose callback evaluates, goes on with its own.
    """
    functions = {f"{kind}_function": None for kind in ("train", "test", "predict")}
    with attributes(model, **overrides, **functions):
        yield


class Means:
    """Makes Keras' Mean metrics take one number for a batch, such as its loss, by the replica's part of the batch.

    Args:
        parts: Of the replicas.
        stack: Puts the metrics back.
    """

    def __init__(self, parts: Parts, stack: ExitStack) -> None:
        self._parts, self._stack = parts, stack
        self._seen: Set[int] = set()

    def reach(self, model: Any) -> None:
        """Reaches all metrics that the model has by now: some are made in the first step."""
        for metric in model.metrics:
            if id(metric) not in self._seen and is_mean(metric):
                self._stack.enter_context(attributes(metric, update_state=self._by_part(metric.update_state)))
            self._seen.add(id(metric))

    def _by_part(self, update_state: Callable[..., Any]) -> Callable[..., Any]:
        def update(values: Any, sample_weight: Any = None) -> Any:
            is_of_batch = sample_weight is None and tf.convert_to_tensor(values).shape.rank == 0
            return update_state(values, sample_weight=self._parts.fraction if is_of_batch else sample_weight)

        return update


def _counted(model: Any, step: Callable[[Any], Any], data: Any, parts: Parts) -> Any:
    """Runs a step, and keeps the metric states as they were where this replica's part does not count."""
    before = [(v, tf.identity(v)) for v in metric_variables(model)]
    logs = step(data)
    for variable, old in before:
        variable.assign(tf.where(tf.convert_to_tensor(parts.counts) > 0, tf.convert_to_tensor(variable), old))
    return logs


def _averaged_logs(model: Any, logs: Any, parts: Parts) -> Any:
    """Averages what a train_step of the user's logs beside the metrics; Keras works those out from their states."""
    if not has_own_train_step(model) or not isinstance(logs, dict):
        return logs
    tensors = {name: tf.convert_to_tensor(logs[name]) for name in set(logs) - set(model.get_metrics_result())}
    own = sorted(name for name, tensor in tensors.items() if tensor.dtype.is_floating)
    return {**logs, **dict(zip(own, parts.mean([tensors[name] for name in own])))}


@contextmanager
def first_steps_skipped(model: Any, num_steps: int, steps_per_epoch: int) -> Iterator[None]:
    """Makes Keras count the first steps of its next fit without taking them: they were taken before a stop.

    The step after them may lie within an execution of several steps: of that one only the rest is taken.
    """
    if not num_steps:
        yield
        return
    plain = model.make_train_function
    in_execution = steps_per_execution(model)
    counted = 0

    def make_train_function(force: bool = False) -> Any:
        plain(force=force)
        function = model.train_function

        def train_function(iterator: Any) -> Any:
            nonlocal counted
            if counted >= num_steps:
                return function(iterator)
            counted = min(counted + in_execution, steps_per_epoch)
            if counted <= num_steps:
                return {}
            with next_execution_of(model, counted - num_steps, plain) as rest:
                return rest(iterator)

        model.train_function = train_function
        return train_function

    with _with_steps(model, make_train_function=make_train_function):
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
