"""The processes of a run: Horovod behind one edge, and its twin for a process that is alone.

Both have the same interface, so that nothing else asks "is this distributed?". Every method but the attributes is a
collective: all ranks call it, in the same order. Ranks exchange arrays and JSON, never pickles.

Synopsis::

    processes = Alone() if topology.world_size == 1 else HorovodProcesses()
    total = processes.sum([gradient])          # in a graph or eagerly
    plan = processes.broadcast_json(plan)      # rank 0's
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence

import numpy as np


class Alone:
    """A world of one process: every collective is the identity."""

    rank = 0
    size = 1

    def sum(self, tensors: Sequence[Any]) -> List[Any]:
        """Sums tensors over the ranks."""
        return list(tensors)

    def broadcast(self, tensor: Any) -> Any:
        """Gives rank 0's tensor."""
        return tensor

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Stacks an array of every rank, of one shape, in rank order: (size, ...)."""
        return np.asarray(array)[np.newaxis]

    def gather_json(self, value: Any) -> List[Any]:
        """Lists a JSON value of every rank, in rank order."""
        return [value]


class HorovodProcesses:
    """The ranks that Horovod connects; `horovod.tensorflow.init` was called.

    Of Horovod only init, rank, size, sums, broadcast and allgather are used: its optimizers, tapes and callbacks do
    nothing, silently, or raise under Keras 3.
    """

    def __init__(self) -> None:
        import horovod.tensorflow as hvd

        self._hvd = hvd
        self.rank = hvd.rank()
        self.size = hvd.size()

    def sum(self, tensors: Sequence[Any]) -> List[Any]:
        """Sums tensors over the ranks, in one exchange for each dtype among them."""
        groups: Dict[Any, List[int]] = {}
        for i, tensor in enumerate(tensors):
            groups.setdefault(tensor.dtype, []).append(i)
        sums: List[Any] = list(tensors)
        for members in groups.values():
            totals = self._hvd.grouped_allreduce([tensors[i] for i in members], op=self._hvd.Sum)
            for i, total in zip(members, totals):
                sums[i] = total
        return sums

    def broadcast(self, tensor: Any) -> Any:
        """Gives rank 0's tensor."""
        import tensorflow as tf

        if tensor.dtype == tf.uint32:  # which Horovod refuses to broadcast
            return tf.bitcast(self._hvd.broadcast(tf.bitcast(tensor, tf.int32), root_rank=0), tf.uint32)
        return self._hvd.broadcast(tensor, root_rank=0)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Stacks an array of every rank, of one shape, in rank order: (size, ...)."""
        import tensorflow as tf

        return self._hvd.allgather(tf.constant(np.asarray(array)[np.newaxis])).numpy()

    def gather_json(self, value: Any) -> List[Any]:
        """Lists a JSON value of every rank, in rank order."""
        text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        lengths = self.gather(np.int64(text.size))
        padded = np.zeros(int(lengths.max()), dtype=np.uint8)
        padded[: text.size] = text
        return [json.loads(row[:n].tobytes()) for row, n in zip(self.gather(padded), lengths)]
