"""What the steps of a model log, over all replicas, as one process would log it.

The results of a model's metrics follow from their states, which `hpcdl.runtime.following` sums. All else that a step of
the user's logs is averaged over the replicas in the step. Keras takes the results where a step logs just these names,
even of a metric that the step leaves alone, and else all that this replica's last step has logged: here it is decided
name by name.

Synopsis::

    logs = StepLogs(model, parts, stack)
    with attributes(model, **logs.overrides):
        with parts.step(element.info):
            return logs.of_step("train", train_step, element.rows)
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Callable, Dict, Mapping, Set

import numpy as np
import tensorflow as tf

from hpcdl.runtime.keras_edge import chooser_of_logs, has_own, is_mean, metric_variables
from hpcdl.runtime.overriding import attributes
from hpcdl.runtime.parts import Parts


class StepLogs:
    """The metrics of a model, and what its train steps and test steps log.

    Args:
        model: Compiled, with its metrics built.
        parts: Of the replicas.
        stack: Puts the metrics back.

    Attributes:
        kind: "train" or "test": of which steps Keras asks for the logs.
        overrides: Attributes of the model meanwhile.
    """

    def __init__(self, model: Any, parts: Parts, stack: ExitStack) -> None:
        self.kind = "test"
        self.overrides: Mapping[str, Any] = {
            "get_metrics_result": self._results,
            chooser_of_logs(model): self._chosen,
        }
        self._model, self._parts, self._stack = model, parts, stack
        self._reached: Set[int] = set()
        #: Of each kind of step that was taken, or traced, the metrics that it updates.
        self._updated: Dict[str, Set[int]] = {}

    def of_step(self, kind: str, step: Callable[[Any], Any], data: Any) -> Any:
        """Takes a step of this replica, within `Parts.step`, and gives its logs over all replicas."""
        self.kind = kind
        updated = self._updated.setdefault(kind, set())
        self._reach()
        logs = self._counted(step, data)
        if not isinstance(logs, dict) or not any(
            has_own(name, self._model) for name in (f"{kind}_step", "compute_metrics")
        ):
            return logs
        logs = _flat(logs)
        results = {
            name for metric in self._model.metrics if id(metric) in updated for name in _names_of(metric)
        }
        tensors = {name: tf.convert_to_tensor(logs[name]) for name in sorted(set(logs) - results)}
        own = [name for name, tensor in tensors.items() if tensor.dtype.is_floating]
        return {**logs, **dict(zip(own, self._parts.mean([tensors[name] for name in own])))}

    def _reach(self) -> None:
        """Reaches all metrics that the model has by now: some are made in the first step."""
        for metric in self._model.metrics:
            if id(metric) not in self._reached:
                update_state = self._noted(metric, metric.update_state)
                self._stack.enter_context(attributes(metric, update_state=update_state))
            self._reached.add(id(metric))

    def _noted(self, metric: Any, update_state: Callable[..., Any]) -> Callable[..., Any]:
        """Notes that a step updates a metric; a Mean takes one number for a batch by this replica's part of it."""

        def update(*values: Any, **named: Any) -> Any:
            if self._is_in_step():
                self._updated[self.kind].add(id(metric))
            return update_state(*values, **named)

        def update_mean(values: Any, sample_weight: Any = None) -> Any:
            is_of_batch = sample_weight is None and tf.convert_to_tensor(values).shape.rank == 0
            return update(values, sample_weight=self._parts.fraction if is_of_batch else sample_weight)

        return update_mean if is_mean(metric) else update

    def _counted(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Runs a step, and keeps the metric states as they were where this replica's part does not count."""
        before = [(v, tf.identity(v)) for v in metric_variables(self._model)]
        logs = step(data)
        for variable, old in before:
            counts = tf.convert_to_tensor(self._parts.counts) > 0
            variable.assign(tf.where(counts, tf.convert_to_tensor(variable), old))
        return logs

    def _results(self) -> Any:
        """Gives what get_metrics_result() gives, after the steps without what they leave alone."""
        results = type(self._model).get_metrics_result(self._model)
        if self._is_in_step() or self.kind not in self._updated:
            return results
        updated = self._updated[self.kind]
        alone = {
            name for metric in self._model.metrics if id(metric) not in updated for name in _names_of(metric)
        }
        return {name: value for name, value in results.items() if name not in alone}

    def _chosen(self, logs: Any) -> Any:
        """Gives the logs of the steps so far: of metrics their results, of all else what the last step has logged."""
        results = {name: np.asarray(value)[()] for name, value in self._model.get_metrics_result().items()}
        if not isinstance(logs, dict):
            return results
        return {**logs, **{name: value for name, value in results.items() if name in logs}}

    def _is_in_step(self) -> bool:
        return self._parts.counts is not None


def _names_of(metric: Any) -> Set[str]:
    result = metric.result()
    return set(result) if isinstance(result, dict) else {metric.name}


def _flat(logs: Mapping[str, Any]) -> Dict[str, Any]:
    """Takes the values out of dicts in the logs, as Keras 3 does with what a step gives."""
    flat: Dict[str, Any] = {}
    for name, value in logs.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat
