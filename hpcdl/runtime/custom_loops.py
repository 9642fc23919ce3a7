"""Steps of a user's own, without `Run.fit`: gradients averaged, variables given to all, data divided.

Synopsis, on every rank, within ``distribution.run`` where a process has several replicas::

    gradients = average_gradients(replicas, tape.gradient(loss, variables), weight=len(x))
    apply_gradients(replicas, optimizer, zip(gradients, variables))
"""

from __future__ import annotations

from typing import Any, Iterable, List, Optional, Sequence, Tuple

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.gradients import applied_as_they_are, check_plain, of_present
from hpcdl.runtime.keras_edge import is_keras_3, is_legacy, plain_variable
from hpcdl.runtime.pipelines import check_order_of_parts, seeds_of_shuffles
from hpcdl.runtime.replicas import Replicas


def average_gradients(replicas: Replicas, gradients: Sequence[Any], weight: Any = None) -> List[Any]:
    """Gives sum_r(w_r g_r) / sum_r(w_r) over all replicas r, dense; a None stays a None.

    Args:
        replicas: Of the run.
        gradients: Tensors, IndexedSlices or Nones, of the same shapes on every replica.
        weight: w_r, a number >= 0; None: 1. What a replica of weight 0 gives does not count, not even a NaN.

    Raises:
        BadInput: A process of several replicas calls it outside of a step.
    """
    _check_in_step(replicas)

    def weighted(dense: List[Any]) -> List[Any]:
        if weight is None:
            return [gradient / replicas.num_replicas for gradient in dense]
        # The total comes first: in 16 bits a gradient times its number of samples could overflow.
        own = tf.cast(weight, tf.float64)
        part = tf.math.divide_no_nan(own, replicas.sum_in_step([own])[0])
        return [
            tf.where(own > 0, gradient * tf.cast(part, gradient.dtype), tf.zeros_like(gradient))
            for gradient in dense
        ]

    def means(dense: List[Any]) -> List[Any]:
        parts = weighted(dense)
        return replicas.sum_in_step(parts) if parts else []

    return of_present(gradients, means)


def apply_gradients(replicas: Replicas, optimizer: Any, grads_and_vars: Iterable[Tuple[Any, Any]]) -> None:
    """Lets a plain Keras optimizer apply averaged gradients as they are.

    Several replicas in one process would sum them once more; nobody else needs this.

    Raises:
        BadInput: The optimizer is none of Keras', or was wrapped by Horovod; or a process of several replicas calls it
            outside of a step.
    """
    check_plain(optimizer)
    pairs = list(grads_and_vars)
    if replicas.per_process == 1:
        optimizer.apply_gradients(pairs)
    elif is_keras_3(optimizer):
        _check_in_step(replicas)
        gradients, variables = zip(*pairs)

        def once_for_all(distribution: Any, gradients: Any) -> None:
            def apply(gradients: Any) -> None:
                optimizer.apply_gradients(zip(gradients, variables))

            with applied_as_they_are(optimizer):
                distribution.extended.call_for_each_replica(apply, args=(gradients,))

        # Replicas are threads: here they wait, and the optimizer is another one for all of them or for none.
        tf.distribute.get_replica_context().merge_call(once_for_all, args=(gradients,))
    elif is_legacy(optimizer):
        optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)
    else:
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)


def broadcast(replicas: Replicas, variables: Iterable[Any]) -> None:
    """Gives every copy of each variable, of TensorFlow or of Keras, the value of global replica 0."""
    replicas.broadcast([plain_variable(variable) for variable in variables])


def shard(dataset: Any, processes: Any) -> Any:
    """Gives a rank's elements of a dataset: of each world_size that follow each other, the one of its number.

    The last ones, which would not suffice for all ranks, are left out: so every rank takes as many steps.

    Args:
        dataset: A ``tf.data.Dataset`` with the same elements in the same order on every rank.
        processes: All ranks, which do this together where it is shuffled.

    Raises:
        BadInput: It is no dataset, has fewer elements than there are ranks, or is shuffled otherwise on each.
    """
    rank, world_size = processes.rank, processes.size
    if not isinstance(dataset, tf.data.Dataset):
        raise BadInput(
            f"shard divides a tf.data.Dataset; received {type(dataset).__name__};"
            " make one by tf.data.Dataset.from_tensor_slices"
        )
    size = int(dataset.cardinality())
    if 0 <= size < world_size:
        raise BadInput(
            f"each rank needs an element of the dataset; received {size} elements for {world_size} ranks;"
            " divide samples, not batches or files, or start fewer ranks"
        )
    if world_size == 1:
        return dataset
    seeds = seeds_of_shuffles(dataset)
    if seeds:
        check_order_of_parts("a data set", processes.gather_json(seeds))
    if size == tf.data.UNKNOWN_CARDINALITY:
        return _members_of_groups(dataset, rank, world_size)
    if size != tf.data.INFINITE_CARDINALITY:
        dataset = dataset.take(size - size % world_size)
    return dataset.shard(world_size, rank)


def _members_of_groups(dataset: Any, rank: int, world_size: int) -> Any:
    """Shards a dataset whose length nobody knows; a window is a nest of datasets, as an element is one of tensors."""
    is_tuple = isinstance(dataset.element_spec, tuple)

    def member(*window: Any) -> Any:
        together = tf.data.Dataset.zip(window if is_tuple else window[0])
        return together.skip(rank).take(1)

    return dataset.window(world_size, drop_remainder=True).flat_map(member)


def _check_in_step(replicas: Replicas) -> None:
    if replicas.per_process == 1:
        return
    is_outside: Optional[bool] = tf.distribute.in_cross_replica_context()
    if is_outside or tf.distribute.get_strategy() is not replicas.distribution:
        raise BadInput(
            "gradients are averaged, and applied, by every replica; received those of a process with"
            f" {replicas.per_process} replicas, outside of a step; call it in a function that run.distribution.run(...)"
            " calls"
        )
