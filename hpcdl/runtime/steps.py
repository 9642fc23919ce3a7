"""The step: `model.fit` stays in charge, and what it calls is made to see the whole world.

Within `exact_steps` a model's train_step and test_step take elements of hpcdl's feed, and its optimizer averages
gradients over the replicas. After it the model is the plain one again.

Synopsis::

    with exact_steps(model, replicas, overrides={}) as (hook, logs):
        model.fit(feed(...), callbacks=[...])
    with exact_tests(model, Parts(replicas), replicas, overrides={}):
        model.evaluate(feed(...), callbacks=[MetricSums(...)])
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.runtime.gradients import Hook, averaged_gradients
from hpcdl.runtime.keras_edge import (
    global_seed_for_threads,
    has_own,
    layers_with_added_losses,
    next_execution_of,
    seed_variables,
    steps_per_execution,
)
from hpcdl.runtime.losses import global_losses
from hpcdl.runtime.normalization import synchronized_normalization
from hpcdl.runtime.overriding import attributes
from hpcdl.runtime.parts import Element, Parts
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.step_logs import StepLogs
from hpcdl.runtime.stopping import Wishes
from hpcdl.runtime.updates import updates_across_replicas


@contextmanager
def exact_steps(
    model: Any,
    replicas: Replicas,
    overrides: Mapping[str, Any],
    wishes: Optional[Wishes] = None,
    on_first_trace: Callable[[tf.Graph], None] = lambda graph: None,
) -> Iterator[Tuple[Hook, StepLogs]]:
    """Makes the steps of a compiled model those of the whole world; yields what has hold of optimizer and logs.

    Args:
        model: Compiled.
        replicas: Of the run.
        overrides: Other attributes of the model meanwhile.
        wishes: Of all ranks; they ride in the steps.
        on_first_trace: Is told the graph that holds the first train_step, if it is not run eagerly.
    """
    train_step, use_global_seed = _untraced(model.train_step), global_seed_for_threads(model)
    parts = Parts(replicas)
    with ExitStack() as stack:
        hook = stack.enter_context(averaged_gradients(model.optimizer, parts, wishes))
        stack.enter_context(updates_across_replicas(model.optimizer, replicas))
        to_tell = [on_first_trace]

        def train(element: Element) -> Any:
            use_global_seed()
            with parts.step(element.info):
                values = logs.of_step("train", train_step, element.rows)
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
            return values

        overrides = {**overrides, "train_step": train}
        logs = stack.enter_context(exact_tests(model, parts, replicas, overrides))
        yield hook, logs


@contextmanager
def exact_tests(
    model: Any, parts: Parts, replicas: Replicas, overrides: Mapping[str, Any]
) -> Iterator[StepLogs]:
    """Makes the test steps of a compiled model those of the whole world; yields what has hold of their logs.

    Args:
        model: Compiled, with its metrics built.
        parts: Of the replicas.
        replicas: Of the run.
        overrides: Other attributes of the model meanwhile.
    """
    test_step, use_global_seed = _untraced(model.test_step), global_seed_for_threads(model)
    # `build_metrics` has done it. Keras 3 would do it again from an element, whose parts it adds up: equal ones only.
    build = "_maybe_symbolic_build"
    overrides = {**overrides, **({build: _built_already} if hasattr(model, build) else {})}
    if hasattr(model, "_distribute_reduction_method"):
        # What a step logs is a mean over all replicas already; Keras 2 would add the local ones up.
        overrides["_distribute_reduction_method"] = "first"
    with ExitStack() as stack:
        if replicas.num_replicas > 1:
            stack.enter_context(global_losses(model, parts, replicas))
        # On one replica too: there Keras 2.12's own fails in float64.
        stack.enter_context(synchronized_normalization(model, parts))
        logs = StepLogs(model, parts, stack)

        def test(data: Any) -> Any:
            if not isinstance(data, Element):  # of a callback's own model.evaluate: the plain step
                return test_step(data)
            use_global_seed()
            with parts.step(data.info):
                return logs.of_step("test", test_step, data.rows)

        stack.enter_context(_with_steps(model, **{**overrides, **logs.overrides, "test_step": test}))
        yield logs


@contextmanager
def numbered_predictions(model: Any, parts: Parts, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Makes ``model.predict`` give ``(outputs, the number of each row in the data set)``."""
    predict_step = _untraced(model.predict_step)

    def predict(element: Element) -> Any:
        with parts.step(element.info):
            outputs = predict_step(element.rows)
        size = tf.shape(tf.nest.flatten(outputs)[0], out_type=tf.int64)[0]
        return outputs, tf.cast(element.info[3], tf.int64) + tf.range(size)

    with ExitStack() as stack:
        stack.enter_context(synchronized_normalization(model, parts))
        stack.enter_context(_with_steps(model, **{**overrides, "predict_step": predict}))
        yield


def _untraced(step: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the function under a tf.function, whose traces would hold what belongs to another fit."""
    return getattr(step, "python_function", step)


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
