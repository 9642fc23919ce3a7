"""From global batches to the parts of this process's replicas, whatever the batches come from.

Every rank reads the same global batches, and each replica takes its part of each one: so the k-th step sees the same
samples in every world, as it does with arrays. That the batches are the same is not believed: a checksum of them is
compared over the ranks, of the first one before the first step, and of all in each epoch, evaluation and prediction at
its end.

Synopsis::

    watch = Watch(replicas, batches_per_iteration=100)
    # batches: (step of the run, data)
    elements = endless(parts_of(batches, replicas, watch, is_bare=False), replicas)
    callbacks = [SameBatches(watch, replicas, steps_per_epoch=100)]
"""

from __future__ import annotations

import threading
import zlib
from typing import Any, Dict, List, Optional, Tuple, Type

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput, Diverged, HpcdlError
from hpcdl.common.saying import say
from hpcdl.runtime.feed import place
from hpcdl.runtime.parts import Element
from hpcdl.runtime.replicas import Replicas

#: Numbers of each row that its checksum takes, evenly spaced: enough to tell rows apart, at no cost.
_COLUMNS = 32
#: So many of the last steps are remembered: more than are read ahead.
_STEPS = 1024

_WAY_OUT = (
    "give each shuffle of the data a seed, and let no step of the pipeline say deterministic=False; or pass a function"
    " data(shard) that gives each replica its own part"
)


class Watch:
    """Sees all batches go by, in order: gives each local replica its part, and keeps checksums.

    Args:
        replicas: Of the run.
        batches_per_iteration: After which the data begin again; None: never.
    """

    def __init__(self, replicas: Replicas, batches_per_iteration: Optional[int]) -> None:
        self._replicas, self.batches_per_iteration = replicas, batches_per_iteration
        self._lock = threading.Lock()  # a validation may have two iterators for a while
        self._sums: Dict[int, int] = {}
        self._firsts: Dict[int, int] = {}
        self._rows_before = 0
        self._expected: Optional[Tuple[int, int]] = None

    def iteration(self, run_step: int) -> int:
        """Gives the number of the iteration that a step of the run reads from."""
        return 0 if self.batches_per_iteration is None else run_step // self.batches_per_iteration

    def expect(self, first_step: int, checksum: Optional[int]) -> None:
        """Says aloud, on rank 0, if the last iteration before a stop does not begin as it did then.

        Args:
            first_step: The first one after the stop.
            checksum: Of the batch with which that iteration began; None: not known.
        """
        if checksum is not None and first_step > 0:
            self._expected = (self.iteration(first_step - 1), checksum)

    def first_of_iteration(self, run_step: int) -> Optional[int]:
        """Gives the checksum of the first batch of a step's iteration; None if it was not read."""
        return self._firsts.get(self.iteration(run_step))

    def so_far(self, run_step: int) -> int:
        """Gives the checksum of all batches up to a step, from where the reading began; 0 if it was not read."""
        return self._sums.get(run_step, 0)

    def note(self, run_step: int, checksum: int) -> None:
        """Notes a batch."""
        iteration = self.iteration(run_step)
        is_first = run_step == iteration * (self.batches_per_iteration or 0)
        self._sums[run_step] = zlib.crc32(checksum.to_bytes(4, "little"), self._sums.get(run_step - 1, 0))
        self._sums.pop(run_step - _STEPS, None)
        if not is_first:
            return
        self._firsts[iteration] = checksum
        self._firsts.pop(iteration - _STEPS, None)
        if self._expected is not None and self._expected[0] == iteration:
            if self._expected[1] != checksum and self._replicas.processes.rank == 0:
                say(
                    "a resumed run will not be bit-exact: the data come in another order than before the stop; give"
                    " each shuffle of the data a seed, and read nothing else from the data set in the script"
                )
            self._expected = None

    def places(self, run_step: np.ndarray, *sketches: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Notes a batch, and divides it.

        Args:
            run_step: Step of the whole run.
            sketches: Of each array of the batch some columns: (rows, columns).

        Returns:
            First row and rows of each local replica's part: (replicas, 2); what they count for: (replicas, 4).
        """
        rows, replicas = len(sketches[0]), self._replicas
        with self._lock:
            step = int(run_step)
            if step == self.iteration(step) * (self.batches_per_iteration or 0):
                self._rows_before = 0
            self.note(step, checksum_of(sketches))
            before, self._rows_before = self._rows_before, self._rows_before + rows
        places = [
            place(rows, replicas.first + r, replicas.num_replicas, before)
            for r in range(replicas.per_process)
        ]
        return (
            np.array([(p.first, p.size) for p in places], np.int64),
            np.array([p.info for p in places], np.float64),
        )


def checksum_of(sketches: Any) -> int:
    """Gives the checksum of the sketches of a batch."""
    checksum = 0
    for sketch in sketches:
        checksum = zlib.crc32(np.ascontiguousarray(sketch).tobytes(), checksum)
    return checksum


def sketches_of(data: Any) -> List[tf.Tensor]:
    """Takes some columns of each tensor of a batch: (rows, columns)."""
    sketches = []
    for tensor in tf.nest.flatten(data):
        if tensor.dtype == tf.string:
            tensor = tf.strings.to_hash_bucket_fast(tensor, 2**31)
        size = tf.shape(tensor)
        columns = tf.reshape(tensor, [size[0], tf.reduce_prod(size[1:])])
        sketches.append(columns[:, :: tf.maximum(1, tf.shape(columns)[1] // _COLUMNS)])
    return sketches


def parts_of(
    batches: tf.data.Dataset, replicas: Replicas, watch: Watch, is_bare: bool, done: int = 0
) -> tf.data.Dataset:
    """Divides global batches.

    Args:
        batches: Of ``(step of the whole run, data)``; data: a nest of tensors with the same number of rows.
        replicas: Of the run.
        watch: Sees them all.
        is_bare: Of the elements: see `Element.of`.
        done: So many of them at the beginning are seen, but not given.

    Returns:
        Elements as those of `hpcdl.runtime.feed.feed`.
    """

    def divided(run_step: tf.Tensor, data: Any) -> Any:
        inputs = [run_step, *sketches_of(data)]
        places, infos = tf.numpy_function(watch.places, inputs, (tf.int64, tf.float64))
        places.set_shape([replicas.per_process, 2])
        infos.set_shape([replicas.per_process, 4])
        return data, places, infos

    def part(data: Any, place: tf.Tensor, info: tf.Tensor) -> Any:
        rows = tf.nest.map_structure(lambda t: t[place[0] : place[0] + place[1]], data)
        return Element.of(rows, info, is_bare)

    def of_replicas(data: Any, places: tf.Tensor, infos: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.range(replicas.per_process).map(lambda r: part(data, places[r], infos[r]))

    seen = batches.map(divided).skip(done)
    if replicas.per_process == 1:
        return seen.map(lambda data, places, infos: part(data, places[0], infos[0]))
    return seen.flat_map(of_replicas)


def endless(elements: tf.data.Dataset, replicas: Replicas) -> Any:
    """Makes the data set of this process of its elements, and lets Keras look at one more where there is none.

    After the last element follow empty ones, since Keras 3 counts steps that it does not take against a length. They
    are not taken from the data: what is read of these must not depend on how far ahead it is read.
    """

    def empty(spec: tf.TensorSpec) -> tf.Tensor:
        return tf.zeros([1 if i == 0 and n is None else n or 0 for i, n in enumerate(spec.shape)], spec.dtype)

    after = tf.data.Dataset.from_tensors(tf.nest.map_structure(empty, elements.element_spec)).repeat()

    def dataset() -> tf.data.Dataset:
        return elements.concatenate(after).prefetch(2 * replicas.per_process)

    return replicas.distribute(dataset)


def check_same(replicas: Replicas, first: int) -> None:
    """Compares the checksum of the first batch over the ranks; a collective.

    Raises:
        BadInput: On every rank, if they differ.
    """
    said = "the first batch of rank {} is not that of rank 0, so samples would be lost and others doubled"
    _compare(replicas, first, BadInput, said)


def _check_all(replicas: Replicas, mine: int, what: str) -> None:
    """Compares the checksum of all batches of something over the ranks; a collective.

    Raises:
        Diverged: On every rank, if they differ.
    """
    said = f"those of {what} are others on rank {{}} than on rank 0, so samples were lost and others doubled"
    _compare(replicas, mine, Diverged, said)


def _compare(replicas: Replicas, checksum: int, error: Type[HpcdlError], said: str) -> None:
    """Raises an error on every rank where a checksum is not rank 0's; ``said`` has a place for the first such rank."""
    of_ranks = replicas.processes.gather(np.int64(checksum))
    others = np.flatnonzero(of_ranks != of_ranks[0])
    if others.size:
        differs = said.format(others[0])
        raise error(
            f"all ranks must read the same global batches, of which each takes its part; {differs}; {_WAY_OUT}"
        )


class SameBatches(tf.keras.callbacks.Callback):
    """Compares the batches of an epoch over the ranks, at its end; every rank has one.

    Args:
        watch: Has seen them.
        replicas: Of the run.
        steps_per_epoch: Of the run.

    Raises:
        Diverged: On every rank, if they differ.
    """

    def __init__(self, watch: Watch, replicas: Replicas, steps_per_epoch: int) -> None:
        super().__init__()
        self._watch, self._replicas, self._of_epoch = watch, replicas, steps_per_epoch
        self._last: Optional[int] = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._last = min(batch, self._of_epoch - 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._last is None:
            return
        mine = self._watch.so_far(epoch * self._of_epoch + self._last)
        _check_all(self._replicas, mine, f"epoch {epoch + 1}")


class SameTests(tf.keras.callbacks.Callback):
    """Compares the batches of an evaluation or a prediction over the ranks, at its end; every rank has one.

    Args:
        watch: Has seen them; each evaluation reads them anew, and none beyond its end.
        replicas: Of the run.
        steps: Of an evaluation.
        what: The word that the user wrote the data for, for the message.

    Raises:
        Diverged: On every rank, if they differ.
    """

    def __init__(self, watch: Watch, replicas: Replicas, steps: int, what: str) -> None:
        super().__init__()
        self._watch, self._replicas, self._steps, self._what = watch, replicas, steps, what
        self._last: Optional[int] = None

    def on_test_begin(self, logs: Any = None) -> None:
        self._last = None

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._last = min(batch, self._steps - 1)

    def on_test_end(self, logs: Any = None) -> None:
        if self._last is not None:  # a callback may have ended it before
            _check_all(self._replicas, self._watch.so_far(self._last), self._what)

    on_predict_begin, on_predict_batch_end, on_predict_end = on_test_begin, on_test_batch_end, on_test_end
