"""The replicas of a run: copies of the model on the devices of each process, in all processes.

A process holds R replicas, on devices of its own, under TensorFlow's MirroredStrategy (none is needed for R = 1);
`hpcdl.runtime.processes` joins the processes. Global replica g = rank x R + r. Everything above this file sees
num_replicas replicas and asks neither "how many in here?" nor "is this distributed?".

Synopsis::

    replicas = Replicas(processes, devices=["CPU:0", "CPU:1"])
    with replicas.scope():
        model = build()
    total = replicas.sum_in_step([gradient])    # in a step, once per replica: the sum over all replicas
    replicas.set_all(variable, value)           # between steps: what every copy in this process holds
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence, Set

import numpy as np
import tensorflow as tf

from hpcdl.runtime.overriding import attributes
from hpcdl.runtime.processes import Parted


class Replicas:
    """All replicas of a run, as one process sees them.

    Args:
        processes: The world, `Alone` or `HorovodProcesses`.
        devices: Of this process's replicas; the same number in every process.

    Attributes:
        per_process: Replicas in this process, R.
        num_replicas: Replicas in all processes.
        first: The global number of this process's first replica.
        distribution: TensorFlow's strategy for this process.
    """

    def __init__(self, processes: Any, devices: Sequence[str]) -> None:
        self.processes = self._processes_in_step = processes
        self.per_process = len(devices)
        self.num_replicas = processes.size * self.per_process
        self.first = processes.rank * self.per_process
        self._made_in_scope: Set[int] = set()
        is_mirrored = self.per_process > 1
        self.distribution = (
            tf.distribute.MirroredStrategy(list(devices)) if is_mirrored else tf.distribute.get_strategy()
        )

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The scope in which variables get a copy on each device."""
        with self.distribution.scope(), tf.variable_creator_scope(self._remembered):
            yield

    @contextmanager
    def parted(self, why: str) -> Iterator[None]:
        """Refuses whatever would reach other processes, while this one does something by itself.

        Args:
            why: What the `BadInput` says.
        """
        nobody = Parted(self.processes, why)
        with attributes(self, processes=nobody, _processes_in_step=nobody):
            yield

    def _remembered(self, create: Any, **arguments: Any) -> Any:
        variable = create(**arguments)
        self._made_in_scope.add(id(variable))
        return variable

    def are_made_in_scope(self, variables: Sequence[Any]) -> bool:
        """Says whether variables were made within the scope; with one replica they are no others, but scripts are."""
        return all(id(variable) in self._made_in_scope for variable in variables)

    def distribute(self, dataset: Callable[[], tf.data.Dataset]) -> Any:
        """Makes the data set of this process, with an element for each of its replicas and step, in their order."""
        if self.per_process == 1:
            return dataset()
        return self.distribution.distribute_datasets_from_function(lambda _: dataset())

    def sum_in_step(self, tensors: Sequence[Any]) -> List[Any]:
        """Sums tensors over all replicas; called by every replica, within a step."""
        if self.per_process == 1:
            return self._processes_in_step.sum(tensors)
        context = tf.distribute.get_replica_context()
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
        if self._processes_in_step.size == 1:
            return list(sums)

        def exchange(distribution: Any, *of_process: Any) -> Any:
            # The sum over this process is the same on each device: one of them speaks for all.
            return tuple(
                self._processes_in_step.sum(
                    [distribution.experimental_local_results(v)[0] for v in of_process]
                )
            )

        # Keras 3 needs the results to be values of this replica, not of the merge.
        return [tf.identity(total) for total in context.merge_call(exchange, args=tuple(sums))]

    def copies(self, variable: Any) -> List[Any]:
        """Lists the copies of a variable in this process, in the order of its replicas."""
        return list(self.distribution.experimental_local_results(variable))

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Gives every copy the value of global replica 0."""
        for variable in variables:
            value = self.processes.broadcast(tf.convert_to_tensor(self.copies(variable)[0]))
            self.set_all(variable, value)

    def set_all(self, variable: Any, value: Any) -> None:
        """Gives every copy in this process one value."""
        for copy in self.copies(variable):
            copy.assign(value)

    def sums(self, variables: Sequence[Any]) -> List[Any]:
        """Sums the copies of each variable over all replicas; called between steps."""
        of_process = [tf.add_n([tf.convert_to_tensor(copy) for copy in self.copies(v)]) for v in variables]
        return self.processes.sum(of_process) if of_process else []

    def average(self, variables: Sequence[Any]) -> None:
        """Gives every copy the mean over all replicas; what all hold alike stays as it is, to the bit."""
        of_replicas = self.checksums(variables)
        differing = [variables[int(i)] for i in np.flatnonzero((of_replicas != of_replicas[0]).any(axis=0))]
        for variable, total in zip(differing, self.sums(differing)):
            self.set_all(variable, total / self.num_replicas)

    def checksums(self, variables: Sequence[Any]) -> np.ndarray:
        """Gives a checksum of each copy of each variable: (num_replicas, variables); a collective."""
        of_copies = [[_checksum(copy) for copy in self.copies(variable)] for variable in variables]
        return self.gather(list(np.array(of_copies, np.int64).reshape(len(variables), self.per_process).T))

    def gather(self, of_copies: Sequence[np.ndarray]) -> np.ndarray:
        """Stacks one array for each replica, in global order: (num_replicas, ...)."""
        stacked = self.processes.gather(np.stack(of_copies))
        return stacked.reshape((self.num_replicas,) + stacked.shape[2:])


def _checksum(copy: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(copy.numpy()).tobytes())
