"""The feed: which samples each rank sees in each step.

One permutation per epoch, drawn from (seed, epoch) alone and so the same on every rank, is cut into global batches,
and each global batch into contiguous shares, one per replica. The k-th global batch thus holds the same samples
whatever the world, and every rank takes the same number of steps. Shares are those of replicas: a rank has one
for each of its replicas.

A global batch with fewer samples than replicas (only an epoch's last can be one) is given whole to every replica,
with equal weight: its mean is the mean of these equal means, and no replica has to compute on nothing.

Synopsis::

    order = Order(num_samples=60_000, global_batch_size=256, seed=0)
    order.cut(order.permutation(epoch=0), step=3)      # indices of the global batch
    place(256, replica=1, num_replicas=2)              # which of them are replica 1's, and what they count for
    dataset = Arrays((x, y), num_samples=60_000).feed(order, replicas, epochs=12)
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.schedule import share, steps_per_epoch
from hpcdl.runtime.identity import digest_of_arrays
from hpcdl.runtime.parts import Element
from hpcdl.runtime.replicas import Replicas


@dataclass(frozen=True)
class Order:
    """The order of the samples: a pure function of seed, epoch and step.

    Attributes:
        num_samples: Samples of an epoch.
        global_batch_size: Samples of a step, but for an epoch's last.
        seed: Of the permutations; None keeps the order of the data.
    """

    num_samples: int
    global_batch_size: int
    seed: Optional[int]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every sample is seen once."""
        return steps_per_epoch(self.num_samples, self.global_batch_size)

    def permutation(self, epoch: int) -> np.ndarray:
        """Gives the order of all samples in an epoch: (num_samples,), int64."""
        if self.seed is None:
            return np.arange(self.num_samples)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def cut(self, permutation: np.ndarray, step: int) -> np.ndarray:
        """Cuts the indices of a global batch out of an epoch's permutation; step counts within the epoch."""
        return permutation[step * self.global_batch_size : (step + 1) * self.global_batch_size]


class Place(NamedTuple):
    """A replica's part of a batch: which rows, and what they count for.

    Attributes:
        first: The part's first row in the batch.
        size: Its rows.
        info: [share in a mean over replicas, fraction of the batch, whether it counts in metrics, number of its first
            row in the data set].
    """

    first: int
    size: int
    info: List[float]


def place(batch_size: int, replica: int, num_replicas: int, rows_before: int = 0) -> Place:
    """Gives a replica's contiguous part of a batch: the whole of one that is too small to share.

    Args:
        batch_size: Rows of the global batch.
        replica: Global number of the replica.
        num_replicas: Of the run.
        rows_before: Rows of the data set before this batch.
    """
    if batch_size < num_replicas:  # all compute it; only replica 0 adds it to the metrics
        return Place(0, batch_size, [1, 1, replica == 0, rows_before])
    first, size = share(batch_size, replica, num_replicas)
    return Place(first, size, [size * num_replicas / batch_size, size / batch_size, 1, rows_before + first])


class _Indices:
    """Gives a replica's indices by the step of the whole run; keeps the permutations of the last two epochs."""

    def __init__(self, order: Order, num_replicas: int) -> None:
        self._order, self._num_replicas = order, num_replicas
        self._permutations: Dict[int, np.ndarray] = {}
        self._lock = threading.Lock()  # tf.data calls from several threads

    def __call__(self, run_step: np.ndarray, replica: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(int(run_step), self._order.steps_per_epoch)
        with self._lock:
            if epoch not in self._permutations:
                self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
                self._permutations[epoch] = self._order.permutation(epoch)
            permutation = self._permutations[epoch]
        batch = self._order.cut(permutation, step)
        first, size, info = place(
            len(batch), int(replica), self._num_replicas, step * self._order.global_batch_size
        )
        return batch[first : first + size].astype(np.int64), np.array(info, np.float64)


class Arrays:
    """Arrays in memory, as what a fit reads (the interface: `hpcdl.runtime.sources.Source`).

    Args:
        arrays: A nest of arrays with ``num_samples`` rows each.
        num_samples: Of the data.
    """

    batch_size = None
    has_order = True

    def __init__(self, arrays: Any, num_samples: int) -> None:
        self.rows, self.num_samples = arrays, num_samples
        self._is_bare = len(arrays) == 1 and not isinstance(arrays[0], (tuple, list))
        self.spec = [[list(a.shape), str(a.dtype)] for a in tf.nest.flatten(arrays)]
        self.description = digest_of_arrays(arrays)

    def feed(
        self, order: Order, replicas: Replicas, epochs: Optional[int], first_step: int = 0, mark: Any = None
    ) -> Any:
        """Makes the elements of this process; of more rows than the order has, the first ones are taken."""
        with tf.device("CPU:0"):
            tensors = tf.nest.map_structure(tf.constant, self.rows)
        indices = _Indices(order, replicas.num_replicas)

        def element(k: tf.Tensor) -> Any:
            run_step, local = k // replicas.per_process, k % replicas.per_process
            rows, info = tf.numpy_function(
                indices, [run_step, replicas.first + local], (tf.int64, tf.float64)
            )
            rows.set_shape([None])
            info.set_shape([4])
            return Element.of(
                tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors), info, self._is_bare
            )

        def dataset() -> tf.data.Dataset:
            num_steps = (epochs or 1) * order.steps_per_epoch
            # Where all steps are done, and Keras trains no epoch, it looks at an element nevertheless.
            first = min(first_step, num_steps - 1)
            elements = tf.data.Dataset.range(first * replicas.per_process, num_steps * replicas.per_process)
            # Without end, since Keras 3 counts steps that it does not take against a length.
            return (
                elements.repeat()
                .map(element, num_parallel_calls=2, deterministic=True)
                .prefetch(2 * replicas.per_process)
            )

        return replicas.distribute(dataset)

    def mark(self, steps_done: int) -> None:
        """Nothing has to be remembered: the order follows from seed, epoch and step."""

    def callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Nothing has to be compared: all rows were."""
        return []

    test_callbacks = callbacks

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Nothing can go wrong later."""
        yield
