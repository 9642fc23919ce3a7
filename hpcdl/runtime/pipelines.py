"""A ``tf.data.Dataset`` as what a fit reads: of global batches, of which each replica takes its part.

A run reads the data set again and again, as Keras does; an epoch is as many batches as one iteration has, or as the
user says. What the k-th iteration of a data set gives may depend on k (a shuffle that is seeded, and reshuffles): a run
that goes on begins as many iterations as were begun before, and skips the batches that are done.

Synopsis::

    pipeline = Pipeline(dataset, replicas)
    pipeline.batch_size, pipeline.num_samples
    elements = pipeline.feed(order, replicas, epochs=12)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.checks import whole_number
from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.saying import say
from hpcdl.runtime.class_weights import one_target, with_class_weight
from hpcdl.runtime.feed import Order
from hpcdl.runtime.parting import (
    SameBatches,
    SameTests,
    Watch,
    check_same,
    checksum_of,
    endless,
    parts_of,
    sketches_of,
)
from hpcdl.runtime.replicas import Replicas


class Stream:
    """The batches of a data set, read again and again.

    Args:
        dataset: Of batches.
        what: The word that the user wrote it for, for messages.
        class_weight: As in Keras.
        steps_per_epoch: What the user said.

    Attributes:
        dataset: Its elements are ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.
        first: The first batch, as arrays.
        batches: Of an iteration; None: it has no end, or nobody needs to know.
        steps: Of an epoch.

    Raises:
        BadInput: It cannot be read as batches.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        what: str,
        class_weight: Optional[Dict[int, float]] = None,
        steps_per_epoch: Optional[int] = None,
    ) -> None:
        self._what = what
        check_dense(dataset, what)
        self.is_bare = not isinstance(dataset.element_spec, tuple)
        self.dataset = _as_tuples(dataset)
        check_batched(self.dataset, what)
        if class_weight is not None:
            self.dataset = _weighted(self.dataset, class_weight)
        first = next(iter(self.dataset), None)
        if first is None:
            raise BadInput(
                f"{what} must have a batch; received a data set that gives none; see what it reads"
            )
        self.first = tf.nest.map_structure(lambda t: t.numpy(), first)
        rows = [len(array) for array in tf.nest.flatten(self.first)]
        if len(set(rows)) > 1 or rows[0] == 0:
            raise BadInput(
                f"all parts of a batch must have the same number of rows, at least 1; received {rows} in the first one"
                f" of {what}; batch x, y and sample_weight together"
            )
        self.batch_size = rows[0]
        self.batches, self.steps = self._count(steps_per_epoch)
        self.spec = [[list(s.shape), s.dtype.name] for s in tf.nest.flatten(self.dataset.element_spec)]
        seeds = seeds_of_shuffles(dataset)
        # Without a seed nothing but the order may tell one start from the next.
        self.is_seeded = _are_given(seeds)
        self._has_nested_shuffles = len(seeds) > 1
        self.checksum = checksum_of([t.numpy() for t in sketches_of(first)])

    def _count(self, steps_per_epoch: Optional[int]) -> Any:
        cardinality = int(self.dataset.cardinality())
        if steps_per_epoch is not None:
            steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch)
            return (cardinality if cardinality > 0 else None), steps_per_epoch
        if cardinality == tf.data.INFINITE_CARDINALITY:
            raise BadInput(
                f"{self._what} must have an end; received a data set that repeats without one; pass steps_per_epoch"
                " (for a validation validation_steps), or take repeat() away"
            )
        if cardinality == tf.data.UNKNOWN_CARDINALITY:
            cardinality = int(self.dataset.reduce(np.int64(0), lambda count, *_: count + 1))
        return cardinality, cardinality

    def of_run(
        self, order: Order, epochs: Optional[int], first_step: int, mark: Optional[int], watch: Watch
    ) -> Tuple[tf.data.Dataset, int]:
        """Gives ``(step of the run, data)`` for a run that begins with a step.

        Args:
            order: Of the run.
            epochs: Of the run; None: one, which each evaluation reads anew.
            first_step: The first one that is taken.
            mark: Checksum of the batch with which the iteration before began, if there was one and it is known.
            watch: Of this data set.

        Returns:
            The batches, and how many of the first ones are to be seen but not taken.
        """
        watch.expect(first_step, mark)
        size, begun = self.batches, watch.iteration(first_step)
        self._begin(first_step, watch)
        end = (epochs or 1) * order.steps_per_epoch
        if size is None:
            return self.dataset.repeat().enumerate().take(end), first_step
        batches = tf.data.Dataset.range(begun, -(-end // size)).flat_map(self._iteration)
        if end % size:
            batches = batches.take(end - begun * size)
        return batches, first_step - begun * size

    def _begin(self, run_step: int, watch: Watch) -> None:
        """Begins the iterations that were done before, as the run did whose steps they are.

        Args:
            run_step: The first step that will be taken.
            watch: Is shown the first batch of the iteration before, if it was the last one of that.
        """
        size, begun = self.batches, watch.iteration(run_step)
        is_at_begin = size is not None and run_step % size == 0
        for iteration in range(begun):
            iterator = iter(self.dataset)
            is_needed = is_at_begin and iteration == begun - 1
            # A shuffle that reads from another one asks it for an order only when it is read.
            if is_needed or self._has_nested_shuffles:
                batch = next(iterator)
                if is_needed:
                    watch.note(iteration * (size or 0), checksum_of([t.numpy() for t in sketches_of(batch)]))

    def _iteration(self, number: tf.Tensor) -> tf.data.Dataset:
        """Gives ``(step of the run, data)`` of an iteration, up to its end: a cache() is kept when that is reached."""
        size = self.batches
        numbered = self.dataset.enumerate().take_while(lambda k, *_: k < size)
        whole = numbered.apply(tf.data.experimental.assert_cardinality(size))
        return whole.map(lambda k, data: (number * size + k, data))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Explains what TensorFlow raises where an iteration is shorter than the first one was."""
        try:
            yield
        except tf.errors.FailedPreconditionError as problem:
            if "was expected to contain" not in str(problem):
                raise
            raise HpcdlError(
                f"every iteration of {self._what} must give as many batches; received fewer than {self.batches} in a"
                " later one; pass steps_per_epoch, and let it repeat()"
            ) from None


class Pipeline:
    """A data set of global batches, as what a fit reads (the interface: `hpcdl.runtime.sources.Source`).

    Args:
        dataset: Of batches.
        replicas: Of the run; all ranks make one together.
        what: The word that the user wrote it for, for messages.
        class_weight: As in Keras.
        steps_per_epoch: What the user said.

    Raises:
        BadInput: It cannot be read as batches, or ranks read others.
    """

    has_order = True

    def __init__(
        self,
        dataset: tf.data.Dataset,
        replicas: Replicas,
        what: str = "x",
        class_weight: Optional[Dict[int, float]] = None,
        steps_per_epoch: Optional[int] = None,
    ) -> None:
        self._what = what
        stream = self._stream = Stream(dataset, what, class_weight, steps_per_epoch)
        check_same(replicas, stream.checksum)
        counts = replicas.processes.gather_json([stream.batches, stream.steps])
        if any(count != counts[0] for count in counts):
            raise BadInput(
                f"all ranks must read the same global batches; received {', '.join(str(c[1]) for c in counts)} steps"
                f" of {what} on the ranks; give all ranks the same data"
            )
        self.rows, self.batch_size, self.spec = stream.first, stream.batch_size, stream.spec
        self.num_samples = stream.steps * stream.batch_size
        self.description = {
            "kind": "tf.data.Dataset",
            "spec": stream.spec,
            "batches": stream.batches,
            "first_batch": stream.checksum if stream.is_seeded else None,
        }
        if not stream.is_seeded and replicas.processes.rank == 0:
            say(
                f"a resumed run will not be bit-exact: {what} has a shuffle without a seed, made before hpcdl.init();"
                " give it a seed"
            )
        self._watch = Watch(replicas, stream.batches)
        self.explained = stream.explained

    def feed(
        self, order: Order, replicas: Replicas, epochs: Optional[int], first_step: int = 0, mark: Any = None
    ) -> Any:
        """Makes the elements of this process; epochs None: those of an evaluation."""
        batches, done = self._stream.of_run(order, epochs, first_step, mark, self._watch)
        parts = parts_of(batches, replicas, self._watch, self._stream.is_bare, done)
        return endless(parts, replicas)

    def mark(self, steps_done: int) -> Optional[int]:
        """Gives what a later start compares with, after so many steps of the run."""
        return self._watch.first_of_iteration(steps_done - 1)

    def callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Gives what compares the batches of all ranks."""
        return [SameBatches(self._watch, replicas, order.steps_per_epoch)]

    def test_callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Likewise those of an evaluation or a prediction."""
        return [SameTests(self._watch, replicas, order.steps_per_epoch, self._what)]


def check_dense(dataset: Any, what: str) -> None:
    """Refuses what the parts of a batch cannot be cut out of."""
    for spec in tf.nest.flatten(dataset.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise BadInput(
                f"the batches of {what} must be dense tensors; received {type(spec).__name__}; make them dense, such as"
                " by .to_tensor()"
            )


def check_batched(dataset: Any, what: str) -> None:
    """Refuses single samples, and what may be one."""
    ranks = [spec.shape.rank for spec in tf.nest.flatten(dataset.element_spec)]
    if None in ranks:
        raise BadInput(
            f"TensorFlow must know how many axes the batches of {what} have; received {dataset.element_spec}; after a"
            " tf.py_function or tf.numpy_function say it, such as by y.set_shape([None, 1])"
        )
    if 0 in ranks:
        raise BadInput(
            f"{what} must be a data set of batches; received one of samples, with {dataset.element_spec}; add"
            " .batch(global batch size) to it"
        )


def seeds_of_shuffles(dataset: tf.data.Dataset) -> List[Any]:
    """Lists the two seeds of each shuffle that a data set is made of: none of the two where nobody gave a seed.

    Those within functions, such as that of an interleave, are not seen.
    """
    return [
        (int(made._seed), int(made._seed2))
        for made in _made_of(dataset)
        if "Shuffle" in type(made).__name__ and hasattr(made, "_seed2")
    ]


def seeds_before_shards(dataset: tf.data.Dataset) -> List[Any]:
    """Lists the two seeds of each shuffle of which a data set takes a part by ``shard``, as far as they are seen."""
    shards = [made for made in _made_of(dataset) if "Shard" in type(made).__name__]
    return [seeds for shard in shards for whole in shard._inputs() for seeds in seeds_of_shuffles(whole)]


def _made_of(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """Gives a data set and all that it is made of."""
    to_see = [dataset]
    while to_see:
        seen = to_see.pop()
        to_see += seen._inputs()
        yield seen


def _are_given(seeds: Sequence[Sequence[int]]) -> bool:
    """Whether each shuffle has a seed."""
    return all(map(any, seeds))


def check_order_of_parts(what: str, seeds: Sequence[Sequence[Any]]) -> None:
    """Refuses parts of orders that differ, of which one would hold what another holds, and none what both lack.

    Args:
        what: What is divided, for messages.
        seeds: Of the shuffles before the division, for each part.

    Raises:
        BadInput: They differ between the parts, or some shuffle has none.
    """
    if any(part != seeds[0] or not _are_given(part) for part in seeds):
        raise BadInput(
            f"every part must be taken of data in the same order; received {what} shuffled in another one for each;"
            " shuffle after the data are divided, or give each shuffle before that a seed (list_files shuffles unless"
            " it is told shuffle=False)"
        )


def _as_tuples(dataset: tf.data.Dataset) -> tf.data.Dataset:
    if not isinstance(dataset.element_spec, tuple):
        return dataset.map(lambda x: (x,))
    if len(dataset.element_spec) not in (1, 2, 3):
        raise BadInput(
            "a data set must give x, (x, y) or (x, y, sample_weight); received elements of"
            f" {len(dataset.element_spec)} parts; put several inputs into one dict or tuple"
        )
    return dataset


def _weighted(dataset: tf.data.Dataset, class_weight: Dict[int, float]) -> tf.data.Dataset:
    """Folds class weights into the sample weights."""
    spec = dataset.element_spec
    one_target(spec[1] if len(spec) > 1 else None)  # a refusal within a graph would be many lines
    floatx = tf.keras.backend.floatx()

    def fold(y: np.ndarray, *weight: np.ndarray) -> np.ndarray:
        return with_class_weight(class_weight, y, weight[0] if weight else None).astype(floatx)

    def weighted(x: Any, y: Any, *weight: Any) -> Any:
        given = tf.nest.flatten(weight)
        weights = tf.numpy_function(fold, [*tf.nest.flatten(y), *given], floatx)
        weights.set_shape([None, *(given[0].shape[1:] if given else [])])
        return x, y, weights

    return dataset.map(weighted)
