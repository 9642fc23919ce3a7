"""The feed: which samples each rank sees in each step.

One permutation per epoch, drawn from (seed, epoch) alone and so the same on every rank, is cut into global batches,
and each global batch into contiguous shares, one per rank. The k-th global batch thus holds the same samples
whatever the world size, and every rank takes the same number of steps.

A global batch with fewer samples than ranks (only an epoch's last can be one) is given whole to every rank, with
equal weight: its mean is the mean of these equal means, and no rank has to compute on nothing.

Synopsis::

    order = Order(num_samples=60_000, global_batch_size=256, seed=0)
    order.batch(epoch=0, step=3)                       # indices of the global batch
    order.share(epoch=0, step=3, rank=1, world_size=2) # this rank's part of them
    dataset = feed((x, y), order, rank=1, world_size=2, epochs=12)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.schedule import shares, steps_per_epoch


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
        return self._cut(self.permutation(epoch), step)

    def share(self, epoch: int, step: int, rank: int, world_size: int) -> np.ndarray:
        """Gives the indices of a rank's part of a global batch."""
        return part(self.batch(epoch, step), rank, world_size)

    def _cut(self, permutation: np.ndarray, step: int) -> np.ndarray:
        return permutation[step * self.global_batch_size : (step + 1) * self.global_batch_size]


def part(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Gives a rank's contiguous share of a batch; the whole of one that is too small to share."""
    if len(batch) < world_size:
        return batch
    sizes = shares(len(batch), world_size)
    first = sum(sizes[:rank])
    return batch[first : first + sizes[rank]]


def counts_in_metrics(batch_size: int, rank: int, world_size: int) -> bool:
    """Says whether a rank adds its part to the metrics: of a batch that all compute, only rank 0 does."""
    return batch_size >= world_size or rank == 0


class _Indices:
    """Gives a rank's indices by the step of the whole run; keeps the permutations of the last two epochs."""

    def __init__(self, order: Order, rank: int, world_size: int) -> None:
        self._order, self._rank, self._world_size = order, rank, world_size
        self._permutations: Dict[int, np.ndarray] = {}
        self._lock = threading.Lock()  # tf.data calls from several threads

    def __call__(self, run_step: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(int(run_step), self._order.steps_per_epoch)
        with self._lock:
            if epoch not in self._permutations:
                self._permutations = {e: p for e, p in self._permutations.items() if e == epoch - 1}
                self._permutations[epoch] = self._order.permutation(epoch)
            permutation = self._permutations[epoch]
        batch = self._order._cut(permutation, step)
        indices = part(batch, self._rank, self._world_size)
        counts = counts_in_metrics(len(batch), self._rank, self._world_size)
        return indices.astype(np.int64), np.array([len(indices), counts], np.float32)


def feed(arrays: Any, order: Order, rank: int, world_size: int, epochs: Optional[int]) -> tf.data.Dataset:
    """Makes the data set of one rank.

    Args:
        arrays: A nest of arrays with ``order.num_samples`` rows each.
        order: Of the samples.
        rank: Whose part.
        world_size: Into how many parts a batch is cut.
        epochs: How many epochs follow each other in it; None repeats the first without end.

    Returns:
        Elements ``(rows, [number of rows, whether they count in metrics])``.
    """
    with tf.device("CPU:0"):
        tensors = tf.nest.map_structure(tf.constant, arrays)
    indices = _Indices(order, rank, world_size)

    def element(run_step: tf.Tensor) -> Any:
        rows, info = tf.numpy_function(indices, [run_step], (tf.int64, tf.float32))
        rows.set_shape([None])
        info.set_shape([2])
        return tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors), info

    run_steps = tf.data.Dataset.range((epochs or 1) * order.steps_per_epoch)
    if epochs is None:
        run_steps = run_steps.repeat()
    return run_steps.map(element, num_parallel_calls=2, deterministic=True).prefetch(2)
