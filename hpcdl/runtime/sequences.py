"""A ``keras.utils.PyDataset``, in Keras 2 ``keras.utils.Sequence``, as what a fit reads: item k is a global batch.

Items are read by number, so a run that goes on reads none that are done. With ``steps_per_epoch`` an epoch of Keras 3
goes on where the one before has stopped, and each one of Keras 2 begins anew. ``on_epoch_end`` (and
``on_epoch_begin``) are called between the epochs, and after (before) each evaluation, by every rank: what they change
must be the same on all.

Synopsis::

    items = Items(py_dataset, replicas)
    elements = items.feed(order, replicas, epochs=12)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import tensorflow as tf

from hpcdl.common.checks import whole_number
from hpcdl.common.errors import BadInput
from hpcdl.runtime.feed import Order
from hpcdl.runtime.keras_edge import has_keras_3
from hpcdl.runtime.nests import nest_of_arrays
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


class Items:
    """A PyDataset of global batches, as what a fit reads (the interface: `hpcdl.runtime.sources.Source`).

    Args:
        items: The user's.
        replicas: Of the run; all ranks make one together.
        what: The word that the user wrote it for, for messages.
        class_weight: As in Keras.
        steps_per_epoch: What the user said.

    Raises:
        BadInput: Its items are no batches, or those of ranks differ.
    """

    has_order = True

    def __init__(
        self,
        items: Any,
        replicas: Replicas,
        what: str = "x",
        class_weight: Optional[Dict[int, float]] = None,
        steps_per_epoch: Optional[int] = None,
    ) -> None:
        self._items, self._what, self._class_weight = items, what, class_weight
        length = items.num_batches if hasattr(items, "num_batches") else len(items)
        if length is None and steps_per_epoch is None:
            raise BadInput(f"{what} must have an end; received one without; pass steps_per_epoch")
        if steps_per_epoch is not None:
            steps_per_epoch = whole_number("steps_per_epoch", steps_per_epoch)
        steps = self._steps = steps_per_epoch or length
        if not steps or (length is not None and steps > length):
            raise BadInput(
                f"an epoch must have a step, and not more of them than {what} has items; received {steps} steps and"
                f" {length} items; pass a smaller steps_per_epoch, or none"
            )
        self._length = length
        first = items[0]
        self._is_bare = not isinstance(first, (tuple, list))
        self.rows = self._arrays_of(first)
        # Lengths that differ between the first two differ elsewhere too, as Keras has it.
        others = self._batch(1) if steps > 1 else self.rows
        self._specs = [
            tf.TensorSpec([None, *(n if n == m else None for n, m in zip(a.shape[1:], b.shape[1:]))], a.dtype)
            for a, b in zip(tf.nest.flatten(self.rows), tf.nest.flatten(others))
        ]
        checksum = _checksum(self.rows)
        check_same(replicas, checksum)
        self.batch_size = len(tf.nest.flatten(self.rows)[0])
        self.num_samples = steps * self.batch_size
        self.spec = [[list(spec.shape), spec.dtype.name] for spec in self._specs]
        self.description = {
            "kind": "PyDataset",
            "spec": self.spec,
            "batches": length,
            "first_batch": checksum,
        }
        self._watch = Watch(replicas, steps)
        self._epoch: Optional[int] = None

    def _batch(self, index: int) -> Any:
        """Reads an item, as ``(x, y, sample_weight)`` of arrays."""
        return self._arrays_of(self._items[index])

    def _arrays_of(self, item: Any) -> Any:
        data = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        if len(data) not in (1, 2, 3):
            raise BadInput(
                f"an item of {self._what} must be x, (x, y) or (x, y, sample_weight); received {len(data)} parts; put"
                " several inputs into one dict or list"
            )
        # Copies: an item may be the same array, filled again.
        return tf.nest.map_structure(np.array, nest_of_arrays(data, self._class_weight)[0])

    def feed(
        self, order: Order, replicas: Replicas, epochs: Optional[int], first_step: int = 0, mark: Any = None
    ) -> Any:
        """Makes the elements of this process; epochs None: those of an evaluation."""
        steps = order.steps_per_epoch
        watch = self._watch
        watch.batches_per_iteration = steps  # a benchmark takes fewer
        first_epoch = first_step // steps
        watch.expect(first_step, mark)
        if mark is not None and first_step > 0:
            self._look_back(order, (first_step - 1) // steps)

        def begin(epoch: np.ndarray) -> np.ndarray:
            """Gives the steps of the run and the numbers of their items, in an epoch."""
            self._begin(int(epoch))
            run_steps = np.arange(steps) + int(epoch) * steps
            taken = run_steps[run_steps >= first_step]
            return np.stack([taken, self._numbers(order, taken)], axis=1).astype(np.int64)

        def read(number: np.ndarray) -> List[np.ndarray]:
            return tf.nest.flatten(self._batch(int(number)))

        def batch(step_and_number: tf.Tensor) -> Any:
            arrays = tf.numpy_function(read, [step_and_number[1]], [spec.dtype for spec in self._specs])
            for array, spec in zip(arrays, self._specs):
                array.set_shape(spec.shape)
            return step_and_number[0], tf.nest.pack_sequence_as(self.rows, arrays)

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            steps_and_numbers = tf.numpy_function(begin, [epoch], tf.int64)
            steps_and_numbers.set_shape([None, 2])
            workers = max(1, int(getattr(self._items, "workers", 1)))
            return tf.data.Dataset.from_tensor_slices(steps_and_numbers).map(
                batch, num_parallel_calls=workers, deterministic=True
            )

        numbers = tf.data.Dataset.range(first_epoch, epochs or 1)
        return endless(parts_of(numbers.flat_map(of_epoch), replicas, watch, self._is_bare), replicas)

    def _numbers(self, order: Order, run_steps: np.ndarray) -> np.ndarray:
        """Gives the numbers of the items that steps of the run take."""
        if self._length is None:
            return run_steps
        by_number = Order(self._length, 1, order.seed)
        size = self._length if has_keras_3() else order.steps_per_epoch
        orders = {k: by_number.permutation(int(k)) for k in np.unique(run_steps // size)}
        return np.array([orders[step // size][step % size] for step in run_steps])

    def _look_back(self, order: Order, epoch: int) -> None:
        """Reads the item with which an epoch began that was read before a stop."""
        self._begin(epoch)
        first = epoch * order.steps_per_epoch
        (number,) = self._numbers(order, np.array([first]))
        self._watch.note(first, _checksum(self._batch(int(number))))

    def _begin(self, epoch: int) -> None:
        """Tells the user's object of the epochs that have begun and ended, each once."""
        for begun in range(0 if self._epoch is None else self._epoch + 1, epoch + 1):
            if begun > 0:
                self._items.on_epoch_end()
            if hasattr(self._items, "on_epoch_begin"):
                self._items.on_epoch_begin()
            self._epoch = begun

    def mark(self, steps_done: int) -> Optional[int]:
        """Gives what a later start compares with, after so many steps of the run."""
        return self._watch.first_of_iteration(steps_done - 1)

    def callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Gives what compares the batches of all ranks."""
        end = tf.keras.callbacks.LambdaCallback(on_train_end=self._end)  # which no other epoch follows
        return [SameBatches(self._watch, replicas, order.steps_per_epoch), end]

    def test_callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Likewise those of an evaluation or a prediction."""
        end = tf.keras.callbacks.LambdaCallback(on_test_end=self._end, on_predict_end=self._end)
        return [SameTests(self._watch, replicas, order.steps_per_epoch, self._what), end]

    def _end(self, logs: Any = None) -> None:
        """Tells the user's object that the last epoch, or an evaluation, has ended."""
        if self._epoch is not None:
            self._items.on_epoch_end()
            self._epoch = None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What an item raises says itself what is wrong."""
        yield


def _checksum(data: Any) -> int:
    tensors = tf.nest.map_structure(tf.constant, data)
    return checksum_of([sketch.numpy() for sketch in sketches_of(tensors)])
