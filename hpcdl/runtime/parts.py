"""What a replica holds of the global batch: its part of it, for as long as a step lasts.

Whatever one process computes as a mean over the whole batch is, over replicas, a mean of their means in which each
replica has the share n_r x num_replicas / n (n_r of the batch's n samples). A batch with fewer samples than replicas
is computed whole by all, with equal shares.

Synopsis::

    parts = Parts(replicas)
    with parts.step(element.info):             # of hpcdl.runtime.feed
        gradient = parts.mean([gradient])[0]   # over all replicas, as one process has it
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import tensorflow as tf

from hpcdl.runtime.replicas import Replicas


class Element(NamedTuple):
    """What a step of hpcdl takes; its type tells it from what Keras takes when a callback calls ``model.evaluate``.

    Attributes:
        rows: ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``: a replica's part of a batch, as Keras has it.
        info: What they count for, as `Parts.step` takes it.
    """

    rows: Any
    info: Any

    @classmethod
    def of(cls, rows: Any, info: Any, is_bare: bool) -> Element:
        """Makes one of rows in a tuple; ``is_bare``: Keras gives an x that is alone without the tuple."""
        return cls(rows[0] if is_bare else rows, info)


class Parts:
    """The part of each replica of this process; each local replica is a thread.

    Args:
        replicas: Of the run.

    Attributes:
        num_replicas: Of the run.
        taken_as_means: What gave one number for a whole part, of which nothing else is known.
    """

    def __init__(self, replicas: Replicas) -> None:
        self.taken_as_means: Set[str] = set()
        self._replicas = replicas
        self._of_thread = threading.local()
        self.num_replicas = replicas.num_replicas

    @contextmanager
    def step(self, info: Any) -> Iterator[None]:
        """Holds for one step of the replica that calls it.

        Args:
            info: What `hpcdl.runtime.feed.Place` says of the part; or ``[rows]`` where no rank knows those of the
                others: then they are summed.
        """
        self._of_thread.info = self._settled(info)
        try:
            yield
        finally:
            self._of_thread.info = None

    def _settled(self, info: Any) -> Any:
        if info.shape[0] != 1:
            return info
        rows, total = info[0], self.sum(info)[0]
        return tf.stack([rows * self.num_replicas / total, rows / total, tf.ones_like(rows)])

    @property
    def share(self) -> Optional[tf.Tensor]:
        """The replica's share in a mean over the replicas; None outside of a step."""
        return self._info(0)

    @property
    def fraction(self) -> Optional[tf.Tensor]:
        """The replica's samples / samples of the global batch; None outside of a step."""
        return self._info(1)

    @property
    def counts(self) -> Optional[tf.Tensor]:
        """Whether the part counts in the metrics, as a number; None outside of a step."""
        return self._info(2)

    def _info(self, position: int) -> Optional[tf.Tensor]:
        info = getattr(self._of_thread, "info", None)
        return None if info is None else info[position]

    def mean(self, tensors: Sequence[Any]) -> List[Any]:
        """Gives the mean over all replicas, by their shares; every replica calls it, within a step."""
        return self.exchange(tensors, [])[0]

    def exchange(
        self, to_average: Sequence[Any], to_sum: Sequence[Any]
    ) -> Tuple[List[tf.Tensor], List[tf.Tensor]]:
        """Gives means and sums over all replicas, in one exchange; every replica calls it, within a step."""
        num_replicas = self.num_replicas
        if num_replicas == 1 or not to_average:
            return list(to_average), list(to_sum)
        # Divided before the sum: one pass over the gradients less, and a sum in 16 bits does not overflow.
        weighted = [tensor * (tf.cast(self.share, tensor.dtype) / num_replicas) for tensor in to_average]
        sums = self._replicas.sum_in_step([*weighted, *to_sum])
        return sums[: len(weighted)], sums[len(weighted) :]

    def sum(self, tensor: Any) -> tf.Tensor:
        """Gives the sum over all replicas; every replica calls it, within a step."""
        return self._replicas.sum_in_step([tensor])[0]

    def divisor(self, of_part: Any) -> tf.Tensor:
        """Gives what to divide a replica's sum by, so that the mean over replicas is all sums / all divisors."""
        total = self.sum(tf.stop_gradient(of_part))
        return total * tf.cast(self.share, total.dtype) / self.num_replicas
