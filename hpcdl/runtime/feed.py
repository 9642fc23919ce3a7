"""The feed: which samples each rank sees in each step.

One permutation per epoch, drawn from (seed, epoch) alone and so the same on every rank, is cut into global batches,
and each global batch into contiguous shares, one per replica. The k-th global batch thus holds the same samples
whatever the world, and every rank takes the same number of steps. Shares are those of replicas: a rank has one
for each of its replicas.

A global batch with fewer samples than replicas (only an epoch's last can be one) is given whole to every replica,
with equal weight: its mean is the mean of these equal means, and no replica has to compute on nothing.

Synopsis::

    order = Order(num_samples=60_000, global_batch_size=256, seed=0)
    order.batch(epoch=0, step=3)                       # indices of the global batch
    order.share(epoch=0, step=3, replica=1, num_replicas=2)   # replica 1's part of them
    dataset = feed((x, y), order, replicas, epochs=12)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.schedule import shares, steps_per_epoch
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

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Gives the indices of a global batch; step counts within the epoch."""
        return self.cut(self.permutation(epoch), step)

    def share(self, epoch: int, step: int, replica: int, num_replicas: int) -> np.ndarray:
        """Gives the indices of a replica's part of a global batch."""
        return part(self.batch(epoch, step), replica, num_replicas)

    def cut(self, permutation: np.ndarray, step: int) -> np.ndarray:
        """Cuts a step's global batch out of an epoch's permutation."""
        return permutation[step * self.global_batch_size : (step + 1) * self.global_batch_size]


def part(batch: np.ndarray, replica: int, num_replicas: int) -> np.ndarray:
    """Gives a replica's contiguous share of a batch; the whole of one that is too small to share."""
    if len(batch) < num_replicas:
        return batch
    sizes = shares(len(batch), num_replicas)
    first = sum(sizes[:replica])
    return batch[first : first + sizes[replica]]


def counts_in_metrics(batch_size: int, replica: int, num_replicas: int) -> bool:
    """Says whether a replica adds its part to the metrics: of a batch that all compute, only replica 0 does."""
    return batch_size >= num_replicas or replica == 0


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
        indices = part(batch, int(replica), self._num_replicas)
        counts = counts_in_metrics(len(batch), int(replica), self._num_replicas)
        fraction = len(indices) / len(batch)
        share = 1 if len(batch) < self._num_replicas else len(indices) * self._num_replicas / len(batch)
        return indices.astype(np.int64), np.array([share, fraction, counts], np.float64)


def feed(
    arrays: Any, order: Order, replicas: Replicas, epochs: int, first_step: int = 0, is_cached: bool = False
) -> Any:
    """Makes the data set of this process.

    Args:
        arrays: A nest of arrays with ``order.num_samples`` rows each, or more, of which the first ones are taken.
        order: Of the samples.
        replicas: Of the run.
        epochs: How many epochs follow each other in it, again and again.
        first_step: Steps of the whole run that are left out; the last step never is, since Keras looks at an element
            even where it trains no epoch.
        is_cached: Whether the first batch comes again and again, from memory, for a benchmark.

    Returns:
        Elements ``(rows, [share in a mean over replicas, fraction of the batch, whether they count in metrics])``,
        one for each local replica and step.
    """
    with tf.device("CPU:0"):
        tensors = tf.nest.map_structure(tf.constant, arrays)
    indices = _Indices(order, replicas.num_replicas)

    def element(k: tf.Tensor) -> Any:
        run_step, local = k // replicas.per_process, k % replicas.per_process
        rows, info = tf.numpy_function(indices, [run_step, replicas.first + local], (tf.int64, tf.float64))
        rows.set_shape([None])
        info.set_shape([3])
        return tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors), info

    def dataset(_: Any = None) -> tf.data.Dataset:
        num_steps = epochs * order.steps_per_epoch
        first = min(first_step, num_steps - 1)
        elements = tf.data.Dataset.range(first * replicas.per_process, num_steps * replicas.per_process)
        if is_cached:
            only = elements.take(replicas.per_process).map(element).cache()
            return only.repeat().prefetch(2 * replicas.per_process)
        # Without end, since Keras 3 counts steps that it does not take against a length.
        return (
            elements.repeat()
            .map(element, num_parallel_calls=2, deterministic=True)
            .prefetch(2 * replicas.per_process)
        )

    if replicas.per_process == 1:
        return dataset()
    return replicas.distribution.distribute_datasets_from_function(dataset)
