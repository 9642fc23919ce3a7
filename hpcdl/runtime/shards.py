"""A function ``data(shard)`` as what a fit reads: each replica's own part of the data, sharded before it is read.

Synopsis::

    def data(shard):
        files = tf.data.Dataset.list_files("train-*.tfrecord", shuffle=False)
        samples = tf.data.TFRecordDataset(files.shard(shard.count, shard.index)).map(parse)
        return samples.shuffle(10_000, seed=shard.seed).batch(shard.per_replica_batch_size, drop_remainder=True)

    run.fit(model, data, per_replica_batch_size=128)
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.saying import say
from hpcdl.runtime.feed import Order
from hpcdl.runtime.parting import Watch, checksum_of, endless, sketches_of
from hpcdl.runtime.parts import Element
from hpcdl.runtime.pipelines import Stream, check_order_of_parts, seeds_before_shards
from hpcdl.runtime.replicas import Replicas

#: What a fit reads besides arrays, for messages.
KINDS = "a tf.data.Dataset, a keras.utils.PyDataset or a function data(shard) that returns a data set"


@dataclass(frozen=True)
class Shard:
    """Which part of the data a replica reads.

    Attributes:
        index: Global number of the replica, from 0.
        count: Number of replicas, and so of parts.
        per_replica_batch_size: What the user said; None if nothing.
        seed: Of the run, for shuffles: the same on all ranks.
    """

    index: int
    count: int
    per_replica_batch_size: Optional[int]
    seed: int


class Shards:
    """The parts of all replicas, as what a fit reads (the interface: `hpcdl.runtime.sources.Source`).

    Args:
        data: The user's function.
        replicas: Of the run; all ranks make one together.
        num_replicas: Of the run, or of the one that is planned.
        per_replica_batch_size: What the user said.
        seed: Of the run.
        what: The word that the user wrote it for, for messages.
        class_weight: As in Keras.
        steps_per_epoch: What the user said.

    Raises:
        BadInput: A part cannot be read as batches, or batches of parts differ in size.
    """

    has_order = False

    def __init__(
        self,
        data: Callable[[Shard], Any],
        replicas: Replicas,
        num_replicas: int,
        per_replica_batch_size: Optional[int],
        seed: int,
        what: str = "x",
        class_weight: Optional[Dict[int, float]] = None,
        steps_per_epoch: Optional[int] = None,
    ) -> None:
        check_function(data, what)
        self._what = what
        self._streams: List[Stream] = []
        seeds = []
        for r in range(replicas.per_process):
            shard = Shard(replicas.first + r, num_replicas, per_replica_batch_size, seed)
            made = data(shard)
            if not isinstance(made, tf.data.Dataset):
                raise BadInput(
                    f"a function that is passed for {what} must return the tf.data.Dataset of a shard; received"
                    f" {type(made).__name__}; return one of batches of shard.per_replica_batch_size"
                )
            seeds.append(seeds_before_shards(made))
            self._streams.append(
                Stream(made, f"the data set of {what}(shard)", class_weight, steps_per_epoch)
            )
        first = self._streams[0]
        self.rows, self.spec = first.first, first.spec
        mine = [
            [s.batch_size, s.steps, s.checksum, s.is_seeded, _is_static(s), s.batches, before]
            for s, before in zip(self._streams, seeds)
        ]
        of_all = [row for rows in replicas.processes.gather_json(mine) for row in rows]
        sizes, steps, checksums, are_seeded, are_static, batches, of_shuffles = zip(*of_all)
        check_order_of_parts(f"{what}(shard)", of_shuffles)
        if len(set(sizes)) > 1:
            raise BadInput(
                f"batches of all shards must have the same size; received first batches of {list(sizes)} rows of"
                f" {what}; give every shard as many samples, and batch by shard.per_replica_batch_size"
            )
        self._steps = min(steps)
        if None not in batches:
            for stream in self._streams:
                stream.batches = min(batches)
        self._is_even = all(are_static)
        self.batch_size = sizes[0] * num_replicas
        self.num_samples = self._steps * self.batch_size
        is_rank_0 = replicas.processes.rank == 0
        if max(steps) > self._steps and is_rank_0:
            say(
                f"the shards of {what} have {self._steps} to {max(steps)} batches; an epoch has {self._steps} steps,"
                " and leaves out what longer shards have more"
            )
        if len(checksums) > 1 and len(set(checksums)) == 1:
            raise BadInput(
                f"each replica must read its own part of the data; received {what}(shard), whose {len(checksums)}"
                " shards all begin with the same batch, so that each would train on every sample; let the function take"
                " the part shard.index of shard.count, or pass the data set itself, of global batches"
            )
        if len(set(checksums)) < len(checksums) and is_rank_0:
            say(
                f"some shards of {what} begin with the same samples, which would be trained on more than once; let the"
                " function take the part shard.index of shard.count"
            )
        self.description = {
            "kind": "data(shard)",
            "spec": self.spec,
            "shards": num_replicas,
            "batches": self._steps,
            "first_batch": list(checksums) if all(are_seeded) else None,
        }
        self._watches = [Watch(replicas, s.batches) for s in self._streams]

    def feed(
        self, order: Order, replicas: Replicas, epochs: Optional[int], first_step: int = 0, mark: Any = None
    ) -> Any:
        """Makes the elements of this process; epochs None: those of an evaluation."""
        seen = []
        marks = mark if mark is not None else [None] * len(self._streams)
        for stream, watch, of_shard in zip(self._streams, self._watches, marks):
            batches, done = stream.of_run(order, epochs, first_step, of_shard, watch)
            seen.append(_seen(batches, watch).skip(done))
        if len(seen) == 1:
            return endless(seen[0].map(self._element), replicas)
        together = tf.data.Dataset.zip(tuple(seen))
        one_by_one = together.flat_map(
            lambda *parts: _joined([tf.data.Dataset.from_tensors(part) for part in parts])
        )
        return endless(one_by_one.map(self._element), replicas)

    def _element(self, data: Any) -> Any:
        """Says what a part counts for; its number of rows, where only all ranks together know that."""
        if self._is_even:
            # The last number, that of its first row, is asked for by predictions only, which know no shards.
            fraction = self._streams[0].batch_size / self.batch_size
            info = tf.constant([1, fraction, 1, 0], tf.float64)
        else:
            info = tf.cast(tf.shape(tf.nest.flatten(data)[0])[:1], tf.float64)
        return Element.of(data, info, self._streams[0].is_bare)

    def mark(self, steps_done: int) -> List[Optional[int]]:
        """Gives what a later start compares with, after so many steps of the run: of this rank's shards."""
        return [watch.first_of_iteration(steps_done - 1) for watch in self._watches]

    def callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Nothing can be compared: each rank has its own data."""
        return []

    test_callbacks = callbacks

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Explains what TensorFlow raises where an iteration is shorter than the first one was."""
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(stream.explained())
            yield


def check_function(data: Any, what: str) -> None:
    """Refuses functions that cannot be called with a shard."""
    if inspect.isgeneratorfunction(data):
        raise BadInput(
            f"{what} must be arrays, {KINDS}; received the generator function {getattr(data, '__name__', data)}, whose"
            " samples cannot be divided; let it give global batches, and pass tf.data.Dataset.from_generator(...)"
        )
    try:
        inspect.signature(data).bind(None)
    except (TypeError, ValueError):
        raise BadInput(
            f"a function that is passed for {what} must take one argument, the shard;"
            f" received {getattr(data, '__name__', type(data).__name__)}; write def data(shard): ..."
        ) from None


def _seen(batches: tf.data.Dataset, watch: Watch) -> tf.data.Dataset:
    def look(run_step: np.ndarray, *sketches: np.ndarray) -> np.ndarray:
        watch.note(int(run_step), checksum_of(sketches))
        return run_step

    def see(run_step: tf.Tensor, data: Any) -> Any:
        seen = tf.numpy_function(look, [run_step, *sketches_of(data)], tf.int64)
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(tf.identity, data)

    # Data of one part would be taken for a tuple of arguments otherwise.
    return batches.map(lambda run_step, data: (see(run_step, data),))


def _joined(datasets: List[tf.data.Dataset]) -> tf.data.Dataset:
    joined = datasets[0]
    for dataset in datasets[1:]:
        joined = joined.concatenate(dataset)
    return joined


def _is_static(stream: Stream) -> bool:
    """Whether all batches are known to have the same number of rows."""
    return all(spec.shape[0] is not None for spec in tf.nest.flatten(stream.dataset.element_spec))
