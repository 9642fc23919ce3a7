"""The processes of a run: Horovod behind one edge, and its twin for a process that is alone.

Both have the same interface, so that nothing else asks "is this distributed?". Every method but the attributes is a
collective: all ranks call it, in the same order. Ranks exchange arrays and JSON, never pickles.

Synopsis::

    processes = Alone() if topology.world_size == 1 else HorovodProcesses()
    total = processes.sum([gradient])          # in a graph or eagerly
    found = from_rank_0(processes, lambda: read(path))      # rank 0's, on all
"""

from __future__ import annotations

import io
import json
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from hpcdl.common.errors import BadInput


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

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Gives rank 0's bytes."""
        return content

    def barrier(self) -> None:
        """Waits until all ranks have come here."""

    def shutdown(self) -> None:
        """Parts the ranks; no collective is possible after it."""


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

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Gives rank 0's bytes."""
        import tensorflow as tf

        mine = np.frombuffer(content, dtype=np.uint8)
        length = int(self._hvd.broadcast(tf.constant(np.int64(mine.size)), root_rank=0))
        sent = mine if self.rank == 0 else np.zeros(length, np.uint8)
        return self._hvd.broadcast(tf.constant(sent), root_rank=0).numpy().tobytes()

    def barrier(self) -> None:
        """Waits until all ranks have come here."""
        self.gather(np.int64(0))

    def shutdown(self) -> None:
        """Parts the ranks; no collective is possible after it."""
        self._hvd.shutdown()


def broadcast_arrays(processes: Any, arrays: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Gives rank 0's arrays, by name; a collective."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    with np.load(io.BytesIO(processes.broadcast_bytes(packed.getvalue())), allow_pickle=False) as received:
        return {name: received[name] for name in received.files}


def from_rank_0(processes: Any, work: Callable[[], Any]) -> Any:
    """Does something on rank 0 alone and gives all ranks its result; a collective.

    Args:
        processes: Of the run.
        work: Gives JSON.

    Raises:
        BadInput: Rank 0 raised it; all others do too.
    """
    answer: Dict[str, Any] = {}
    if processes.rank == 0:
        try:
            answer = {"result": work()}
        except BadInput as problem:
            answer = {"bad_input": str(problem)}
    answer = json.loads(processes.broadcast_bytes(json.dumps(answer).encode()))
    if "bad_input" in answer:
        raise BadInput(answer["bad_input"])
    return answer["result"]
