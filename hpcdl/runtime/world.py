"""The world of a run, as one rank sees it: its place, and what all ranks do together outside of `Run.fit`.

Synopsis, of a loop of a script's own::

    run = hpcdl.init()
    with run.scope():
        model, optimizer = build(), tf.keras.optimizers.Adam()
    run.broadcast(model.variables)
    for x, y in run.shard(samples).shuffle(10_000).batch(32):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = run.average_gradients(tape.gradient(loss, model.trainable_variables), weight=len(x))
        run.apply_gradients(optimizer, zip(gradients, model.trainable_variables))
    run.print(f"loss {loss:.3f}")
    run.save(model, "model.keras")
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Sequence, Tuple, Union

from hpcdl.common.topology import Choice, Topology
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.use import note_model, note_use


class World:
    """The place of this process among all, and their common steps.

    Attributes:
        topology: The place of this process.
        strategy: Name of the strategy.
        replicas_per_process: Model copies in each process.
        num_replicas: World size x replicas per process.
    """

    def __init__(self, topology: Topology, choice: Choice, replicas: Replicas, is_plan_only: bool) -> None:
        self.topology = topology
        self.strategy = choice.strategy
        self.replicas_per_process = choice.replicas
        self.num_replicas = topology.world_size * choice.replicas
        self._replicas = replicas
        self._is_plan_only = is_plan_only

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.topology.rank

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.topology.world_size

    @property
    def is_rank_0(self) -> bool:
        """Whether this is the process that writes."""
        return self.topology.is_rank_0

    @property
    def distribution(self) -> Any:
        """TensorFlow's strategy of this process: its ``run`` takes a step on each replica here."""
        return self._replicas.distribution

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The scope in which the model is built and compiled."""
        with self._replicas.scope():
            yield

    def print(self, *values: Any, **options: Any) -> None:
        """Prints on rank 0 only, at once.

        Args:
            values: As of Python's ``print``.
            options: Likewise.
        """
        if self.is_rank_0:
            print(*values, **{"flush": True, **options})

    def barrier(self) -> None:
        """Waits until all ranks have come here; every rank calls it."""
        self._replicas.processes.barrier()

    def save(self, model: Any, path: Union[str, Path]) -> None:
        """Saves a model on rank 0, while the others wait; every rank calls it.

        Args:
            model: Any Keras model.
            path: A name that ends in ``.keras``, which plain Keras loads, with a plain optimizer. The file is there as
                a whole or not at all.

        Raises:
            BadInput: The name has another ending; on all ranks.
            HpcdlError: The model could not be saved, or its folder not be made; on all ranks.
        """
        from hpcdl.runtime.saving import save_on_rank_0

        note_model(model, os.environ)
        self._end_plan()
        save_on_rank_0(self._replicas.processes, model, Path(path))

    def broadcast(self, variables: Iterable[Any]) -> None:
        """Gives all ranks the values that rank 0 has; every rank calls it, between steps.

        Args:
            variables: Of TensorFlow or of Keras, the same ones on every rank: ``model.variables``, say.
        """
        from hpcdl.runtime import custom_loops

        self._begin_own_loop()
        custom_loops.broadcast(self._replicas, variables)

    def shard(self, dataset: Any) -> Any:
        """Gives this rank's part of a dataset: of world_size elements that follow each other, one for each rank.

        Args:
            dataset: A ``tf.data.Dataset`` of samples, not of batches, before it is shuffled. The last elements, which
                would not suffice for all ranks, are left out, so that every rank takes as many steps. Of one that is
                shuffled before, with a seed, all ranks take their parts together.

        Returns:
            A ``tf.data.Dataset`` of the same kind of elements; with one rank, the same one.

        Raises:
            BadInput: It is no dataset, has fewer elements than there are ranks, or is shuffled otherwise on each.
        """
        from hpcdl.runtime import custom_loops

        self._begin_own_loop()
        return custom_loops.shard(dataset, self._replicas.processes)

    def average_gradients(self, gradients: Sequence[Any], weight: Any = None) -> List[Any]:
        """Averages the gradients of a step of the script's own; every replica calls it, eagerly or in a graph.

        In a process of several replicas it is called within ``run.distribution.run(step)``, and the optimizer applies
        what it gives by `apply_gradients`.

        Args:
            gradients: Tensors, IndexedSlices or Nones, each of the same shape on every replica.
            weight: Of this replica in the mean: its number of samples, where these differ. A replica without samples
                has 0, and what it gives does not count. None: all weigh alike.

        Returns:
            The means over all replicas of all ranks, dense; a None stays a None.

        Raises:
            BadInput: A process of several replicas calls it outside of a step.
        """
        from hpcdl.runtime import custom_loops

        self._begin_own_loop()
        return custom_loops.average_gradients(self._replicas, gradients, weight)

    def apply_gradients(self, optimizer: Any, grads_and_vars: Iterable[Tuple[Any, Any]]) -> None:
        """Lets an optimizer apply what `average_gradients` gave, as it is, in every strategy.

        Where a process has one replica, this is ``optimizer.apply_gradients``; where it has several, that would sum
        the averaged gradients once more.

        Args:
            optimizer: A plain Keras one.
            grads_and_vars: Pairs of a gradient and its variable.

        Raises:
            BadInput: The optimizer is none of Keras', or was wrapped by Horovod; or a process of several replicas calls
                it outside of a step.
        """
        from hpcdl.runtime import custom_loops

        custom_loops.apply_gradients(self._replicas, optimizer, grads_and_vars)

    def _begin_own_loop(self) -> None:
        """Notes that hpcdl is used, and ends a plan."""
        note_use(os.environ)
        self._end_plan()

    def _end_plan(self) -> None:
        """Ends a plan here: what a script does in its own loop is not known before."""
        if self._is_plan_only:
            self.print(
                f"{self.strategy}: {self.world_size} x {self.replicas_per_process} replicas; the script has a loop of"
                " its own, in which nothing is planned"
            )
            raise SystemExit(0)
