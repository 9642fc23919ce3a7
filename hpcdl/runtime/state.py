"""What the state of a run is, in memory: all of it goes into one checkpoint, and comes back out of it.

Three kinds of variables:

* shared: all replicas hold the same (weights, optimizer): one array each;
* of replicas: each replica has its own (random generators, moving averages between two epochs, metric sums): stacked,
  one row per replica, so that one checkpoint holds the whole run;
* of callbacks: what their attributes became since the run began.

Synopsis::

    arrays = capture(model, replicas)              # every rank calls it
    restore(model, replicas, arrays, num_replicas, new_seeds)     # arrays: rank 0's; before the first step
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.runtime.keras_edge import (
    metric_variables,
    own_variables,
    seed_variables,
    synchronized_variables,
)
from hpcdl.runtime.processes import broadcast_arrays
from hpcdl.runtime.replicas import Replicas


def layout(model: Any) -> Dict[str, List[Any]]:
    """Lists shape and dtype of every variable: a checkpoint fits a model that has the same ones."""
    kinds = {"shared": synchronized_variables(model), **_of_replicas(model)}
    return {
        kind: [[list(v.shape), tf.as_dtype(v.dtype).name] for v in variables]
        for kind, variables in kinds.items()
    }


def capture(model: Any, replicas: Replicas) -> Dict[str, np.ndarray]:
    """Takes all variables; a collective.

    Returns:
        ``shared/3``, on rank 0 only: of a variable's shape; ``seed/0``, ``own/2``, ``metric/1``: (num_replicas, ...).
    """
    shared = synchronized_variables(model) if replicas.processes.rank == 0 else []
    arrays = {f"shared/{i}": replicas.copies(variable)[0].numpy() for i, variable in enumerate(shared)}
    names, of_copies = [], []
    for kind, variables in _of_replicas(model).items():
        for i, variable in enumerate(variables):
            names.append(f"{kind}/{i}")
            of_copies.append([copy.numpy() for copy in replicas.copies(variable)])
    if names:
        packed = [b"".join(map(_bytes, copies)) for copies in zip(*of_copies)]
        rows = replicas.gather([np.frombuffer(row, np.uint8) for row in packed])
        at = 0
        for name, (first, *_) in zip(names, of_copies):
            arrays[name] = _array(rows[:, at : at + first.nbytes], first.dtype, first.shape)
            at += first.nbytes
    return arrays


def restore(
    model: Any,
    replicas: Replicas,
    arrays: Optional[Mapping[str, np.ndarray]],
    num_replicas: int,
    new_seeds: Callable[[], None],
) -> None:
    """Gives all variables what `capture` took; a collective.

    Taken on another number of replicas: random generators start anew, moving averages are averaged, and the sums of
    metrics go to replica 0.

    Args:
        model: With the `layout` of the captured one.
        replicas: Of the run.
        arrays: What `capture` gave, on rank 0; None on the others.
        num_replicas: With which they were taken.
        new_seeds: Gives the random generators other streams.
    """
    shared = synchronized_variables(model)
    if arrays is not None:
        for i, variable in enumerate(shared):
            replicas.set_all(variable, tf.constant(_typed(arrays[f"shared/{i}"], variable)))
    replicas.broadcast(shared)
    of_replicas = _of_replicas(model)
    sent = {name: array for name, array in (arrays or {}).items() if name.split("/")[0] in of_replicas}
    received = broadcast_arrays(replicas.processes, sent)
    stacks = {
        kind: [_typed(received[f"{kind}/{i}"], variable) for i, variable in enumerate(variables)]
        for kind, variables in of_replicas.items()
    }
    is_same_world = num_replicas == replicas.num_replicas
    if is_same_world:
        _give(replicas, of_replicas["seed"], stacks["seed"])
        _give(replicas, of_replicas["own"], stacks["own"])
    else:
        new_seeds()
        for variable, stack in zip(of_replicas["own"], stacks["own"]):
            # A mean of equal numbers, such as those of a frozen layer, is not always that number.
            is_mean = stack.dtype.kind == "f" and (stack != stack[0]).any()
            value = stack.mean(axis=0) if is_mean else stack[0]
            replicas.set_all(variable, tf.constant(value, dtype=variable.dtype))
    for variable, stack in zip(of_replicas["metric"], stacks["metric"]):
        rows = stack if is_same_world else _to_replica_0(stack, replicas.num_replicas)
        _give(replicas, [variable], [rows])


def _of_replicas(model: Any) -> Dict[str, List[Any]]:
    return {
        "seed": seed_variables(model),
        "own": own_variables(model),
        "metric": metric_variables(model),
    }


def _give(replicas: Replicas, variables: Sequence[Any], stacks: Sequence[np.ndarray]) -> None:
    for variable, stack in zip(variables, stacks):
        for r, copy in enumerate(replicas.copies(variable)):
            copy.assign(tf.constant(stack[replicas.first + r], dtype=variable.dtype))


def _to_replica_0(stack: np.ndarray, num_replicas: int) -> np.ndarray:
    rows = np.zeros((num_replicas, *stack.shape[1:]), stack.dtype)
    rows[0] = stack.sum(axis=0)
    return rows


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _array(rows: np.ndarray, dtype: Any, shape: Tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(_bytes(rows), dtype).reshape((len(rows), *shape))


def _typed(array: np.ndarray, variable: Any) -> np.ndarray:
    # NumPy's files know no bfloat16: it comes back as bytes of the same width.
    return array.view(tf.as_dtype(variable.dtype).as_numpy_dtype) if array.dtype.kind == "V" else array
