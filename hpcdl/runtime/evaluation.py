"""Evaluation and prediction by all replicas, as one process would do them.

Synopsis::

    evaluate(model, source, order, replicas, verbose=0)      # Keras' values, the same on all ranks
    predict(model, source, order, replicas, verbose=0)       # all rows, in the order of the data, on rank 0
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime import agreement
from hpcdl.runtime.execution import Execution
from hpcdl.runtime.feed import Order
from hpcdl.runtime.following import MetricSums
from hpcdl.runtime.keras_edge import (
    build_global_seed,
    build_metrics,
    one_step_per_execution,
    own_variables,
    plain_variable,
)
from hpcdl.runtime.parts import Parts
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.sources import Source
from hpcdl.runtime.steps import exact_tests, numbered_predictions


def evaluate(
    model: Any,
    source: Source,
    order: Order,
    replicas: Replicas,
    verbose: int,
    return_dict: bool = False,
    callbacks: Sequence[Any] = (),
) -> Any:
    """Gives what ``model.evaluate`` gives in one process: metric states are summed before a metric is worked out.

    Args:
        model: Compiled, with its variables; those of replica 0 count.
        source: The data.
        order: Of them.
        replicas: Of the run; a collective.
        verbose: As in Keras.
        return_dict: As in Keras.
        callbacks: The user's, of this rank.
    """
    _compare(source, order, replicas)
    # Keras 2 makes them in the first step else, where what does not count could not be taken back.
    with replicas.scope():
        build_metrics(model, source.rows)
        build_global_seed(model)
    execution = Execution(model, replicas)
    steps = order.steps_per_epoch
    tests = exact_tests(model, Parts(replicas), replicas, execution.overrides)
    with _weights_of_replica_0(model, replicas), tests as logs, source.explained():
        own = [
            MetricSums(replicas, logs, steps),
            *execution.callbacks(0, steps),
            *source.test_callbacks(order, replicas),
        ]
        return model.evaluate(
            source.feed(order, replicas, epochs=None),
            steps=steps,
            verbose=verbose,
            return_dict=return_dict,
            callbacks=[*own, *callbacks],
        )


def predict(model: Any, source: Source, order: Order, replicas: Replicas, verbose: int) -> Optional[Any]:
    """Gives what ``model.predict`` gives in one process: the outputs for all rows; None on other ranks than 0.

    Args:
        model: With its variables; those of replica 0 count.
        source: The data.
        order: Of them.
        replicas: Of the run; a collective.
        verbose: As in Keras.
    """
    _compare(source, order, replicas)
    numbered = numbered_predictions(model, Parts(replicas), one_step_per_execution(model))
    with _weights_of_replica_0(model, replicas), numbered, source.explained():
        feed = source.feed(order, replicas, epochs=None)
        callbacks = source.test_callbacks(order, replicas)
        outputs, numbers = model.predict(
            feed, steps=order.steps_per_epoch, verbose=verbose, callbacks=callbacks
        )
    counts = replicas.processes.gather(np.int64(len(numbers)))
    of_ranks = _gathered(replicas, numbers, counts)
    is_rank_0 = replicas.processes.rank == 0

    def in_order(array: np.ndarray) -> Optional[np.ndarray]:
        rows = _gathered(replicas, array, counts)
        if not is_rank_0:
            return None
        # Of a batch that all replicas have computed the rows come several times, and are the same.
        ordered = np.empty((of_ranks.max() + 1, *rows.shape[1:]), rows.dtype)
        ordered[of_ranks] = rows
        return ordered

    ordered = tf.nest.map_structure(in_order, outputs)
    return ordered if is_rank_0 else None


def _gathered(replicas: Replicas, array: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Joins the rows of all ranks, which have different numbers of them."""
    if not isinstance(array, np.ndarray):
        raise BadInput(
            f"predictions must be arrays of one shape; received {type(array).__name__}; let the model give rows of one"
            " length, or call model.predict on one rank"
        )
    padded = np.zeros((counts.max(), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return np.concatenate([rows[:n] for rows, n in zip(replicas.processes.gather(padded), counts)])


def _compare(source: Source, order: Order, replicas: Replicas) -> None:
    """Refuses ranks whose data differ, whose steps would be none of one batch; a collective."""
    agreement.check(
        replicas.processes,
        {
            "num_samples": order.num_samples,
            "global_batch_size": order.global_batch_size,
            "spec": source.spec,
            "data": source.description,
        },
    )


@contextmanager
def _weights_of_replica_0(model: Any, replicas: Replicas) -> Iterator[None]:
    """Gives every replica the weights of replica 0; a collective.

    In mid-epoch each has moving averages of its own, and goes on with them: the training must not depend on when
    somebody looks. What the model itself changes in the meantime stays so.
    """
    replicas.broadcast([plain_variable(v) for v in model.trainable_variables])
    own = own_variables(model)
    before = [[copy.numpy() for copy in replicas.copies(variable)] for variable in own]
    replicas.broadcast(own)
    shared = [replicas.copies(variable)[0].numpy() for variable in own]
    try:
        yield
    finally:
        for variable, values, value_of_all in zip(own, before, shared):
            for copy, value in zip(replicas.copies(variable), values):
                if copy.numpy().tobytes() == value_of_all.tobytes():
                    copy.assign(value)
