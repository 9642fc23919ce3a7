"""The processes of a run: Horovod behind one edge, and its twin for a process that is alone.

Both have the same interface, so that nothing else asks "is this distributed?". Every method but the attributes is a
collective: all ranks call it, in the same order. Ranks exchange arrays and JSON, never pickles.

Synopsis::

    processes = Alone() if topology.world_size == 1 else start_horovod(topology, None, os.environ)
    total = processes.sum([gradient])          # in a graph or eagerly
    found = from_rank_0(processes, lambda: read(path))      # rank 0's, on all
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, MutableMapping, NoReturn, Optional, Sequence, Tuple

import numpy as np

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.releases import release
from hpcdl.common.topology import Topology
from hpcdl.runtime.connecting import Limit
from hpcdl.runtime.inventory import built_for
from hpcdl.runtime.rendezvous import await_ranks, gloo_environ, meets_by_gloo

#: Tensors from this size on are exchanged one by one, without a copy; smaller ones together, up to it.
EXCHANGE_BYTES = 4 * 2**20
#: How long the others let rank 0 report first what only it has met: of several reports the earliest one is told.
_GIVE_WAY_S = 2.0


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
        """Sums tensors over the ranks, in the exchanges that `exchanges` lists.

        In a graph an exchange begins as soon as its tensors are there, while others are still computed. Horovod joins
        those of one name: a number of the graph's own, since layers, whose names are in those of tensors and scopes,
        may have been counted otherwise on each rank.
        """
        import tensorflow as tf

        sums: List[Any] = list(tensors)
        sizes = [(t.dtype, t.dtype.size * (t.shape.num_elements() or 0)) for t in tensors]
        is_eager = tf.executing_eagerly()
        graph = tf.compat.v1.get_default_graph()
        with contextlib.nullcontext() if is_eager else graph.name_scope(None):
            for members in exchanges(sizes):
                totals = self._hvd.grouped_allreduce(
                    [tensors[i] for i in members], op=self._hvd.Sum, name=None if is_eager else "exchange"
                )
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


class Parted:
    """A world whose other processes are elsewhere: every collective is refused, since they would never come.

    Args:
        processes: The world.
        why: What the `BadInput` says.
    """

    def __init__(self, processes: Any, why: str) -> None:
        self.rank, self.size, self._why = processes.rank, processes.size, why

    def __getattr__(self, name: str) -> NoReturn:
        raise BadInput(self._why)


def exchanges(tensors: Sequence[Tuple[Any, int]], most_bytes: int = EXCHANGE_BYTES) -> List[List[int]]:
    """Divides tensors among exchanges, the last tensors first: backpropagation gives gradients in that order.

    Each exchange is made as a whole and alone (`connect` tells Horovod so), hence what is added in which order follows
    from the tensors only, never from timing.

    Args:
        tensors: ``(dtype, bytes)`` of each.
        most_bytes: Of an exchange of several tensors.

    Returns:
        The indices of each exchange's tensors, all of one dtype.
    """
    made: List[List[int]] = []
    open_ones: Dict[Any, Tuple[List[int], int]] = {}
    for i in reversed(range(len(tensors))):
        dtype, size = tensors[i]
        if size >= most_bytes:
            made.append([i])
            continue
        members, before = open_ones.get(dtype, ([], 0))
        if not members or before + size > most_bytes:
            members, before = [], 0
            made.append(members)
        members.append(i)
        open_ones[dtype] = (members, before + size)
    return made


def broadcast_arrays(processes: Any, arrays: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Gives rank 0's arrays, by name; a collective."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # they are no allow_pickle
    with np.load(io.BytesIO(processes.broadcast_bytes(packed.getvalue())), allow_pickle=False) as received:
        return {name: received[name] for name in received.files}


def from_rank_0(processes: Any, work: Callable[[], Any]) -> Any:
    """Does something on rank 0 alone and gives all ranks its result; a collective.

    Args:
        processes: Of the run.
        work: Gives JSON.

    Raises:
        BadInput: Rank 0 raised it; all others do too.
        HpcdlError: On the others: rank 0 has met another error, which it raises itself. Whoever catches it on all ranks
            finds them at the same collective.
    """
    # Where this rank is parted from the others, it is refused here, with nothing done yet.
    broadcast_bytes = processes.broadcast_bytes
    sent = ""
    if processes.rank == 0:
        try:
            sent = json.dumps({"result": work()})
        except BadInput as problem:
            sent = json.dumps({"bad_input": str(problem)})
        except Exception as problem:
            said = f"rank 0 failed: {type(problem).__name__}: {problem}".splitlines()[0]
            said = str(problem) if isinstance(problem, HpcdlError) else said
            broadcast_bytes(json.dumps({"failed": said}).encode())
            raise
    answer = json.loads(broadcast_bytes(sent.encode()))
    if "bad_input" in answer:
        raise BadInput(answer["bad_input"])
    if "failed" in answer:
        time.sleep(_GIVE_WAY_S)
        raise HpcdlError(answer["failed"])
    return answer["result"]


def start_horovod(
    topology: Topology,
    controller: Optional[str],
    environ: MutableMapping[str, str],
    timeout_s: float = 300.0,
) -> HorovodProcesses:
    """Connects the ranks, once all of them are there.

    Args:
        topology: The place of this process.
        controller: ``mpi`` or ``gloo``; None: as `meets_by_gloo` has it.
        environ: Of this process; gets Horovod's variables.
        timeout_s: How long ranks wait for each other; and then for MPI, which knows no end itself.

    Raises:
        BadInput: Horovod is missing or was built for another TensorFlow, or the world that it sees is not the one that
            the launcher started.
        HpcdlError: Ranks did not arrive in time; they are named.
    """
    check_meeting(topology, controller, environ)
    folder = environ.get("HPCDL_RENDEZVOUS_DIR") or None
    by_gloo = meets_by_gloo(topology, controller, environ)
    if folder is not None and by_gloo:
        interfaces = environ.get("HOROVOD_GLOO_IFACE")
        environ.update(gloo_environ(topology, folder, timeout_s, interfaces))
    elif folder is not None:
        await_ranks(topology, folder, timeout_s)
    # Whatever Horovod fused with an exchange, as timing has it, would change the order of additions in it.
    environ.setdefault("HOROVOD_DISABLE_GROUP_FUSION", "1")
    try:
        import horovod.tensorflow as hvd

        _check_release(os.path.dirname(os.path.dirname(str(hvd.__file__))))
        limit = Limit(topology, Path(folder) if folder else None, timeout_s, environ)
        with contextlib.nullcontext() if by_gloo else limit:  # Gloo has a limit of its own
            hvd.init()
    except ImportError as problem:
        raise BadInput(
            f"{topology.world_size} ranks need Horovod, built for this TensorFlow; received:"
            f" {' '.join(str(problem).split())};"
            " run `hpcdl horovod install`, then `hpcdl horovod check`"
        ) from problem
    if (hvd.rank(), hvd.size()) != (topology.rank, topology.world_size):
        raise BadInput(
            f"Horovod must see the world that the launcher started; {topology.launcher} started rank {topology.rank}"
            f" of {topology.world_size}, Horovod sees rank {hvd.rank()} of {hvd.size()}; use the launcher of"
            " the MPI that Horovod was built with (`hpcdl horovod check`), or `hpcdl train --launcher gloo`"
        )
    return HorovodProcesses()


def _check_release(folder: str) -> None:
    """Refuses a Horovod that loads, and was built for another TensorFlow, of which it would only warn."""
    target = built_for(folder)
    if target is None:
        return
    import tensorflow as tf

    if release(target) != release(tf.__version__):
        raise BadInput(
            f"Horovod must be built for this TensorFlow, {tf.__version__}; received one for {target}; run"
            " `hpcdl horovod install`, then `hpcdl horovod check`"
        )


def check_meeting(topology: Topology, controller: Optional[str], environ: Mapping[str, str]) -> None:
    """Refuses ranks that have nowhere to meet: Horovod would let each of them run alone, or abort.

    Raises:
        BadInput: What they would meet by is missing.
    """
    has_folder = bool(environ.get("HPCDL_RENDEZVOUS_DIR"))
    has_server = bool(environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR"))
    by_gloo = meets_by_gloo(topology, controller, environ)
    if by_gloo and not has_folder and not has_server:
        raise BadInput(
            f"ranks that no MPI connects meet in a folder; received {topology.world_size} of them and no"
            " HPCDL_RENDEZVOUS_DIR; set it to a new folder that all ranks see, or HPCDL_CONTROLLER=mpi where an MPI has"
            " started them"
        )
    of_open_mpi = ("PMIX_", "OMPI_MCA_orte_", "OMPI_MCA_ess_")
    if not by_gloo and topology.launcher == "openmpi" and not any(n.startswith(of_open_mpi) for n in environ):
        raise BadInput(
            f"ranks of Open MPI meet at its server; received OMPI_COMM_WORLD_SIZE={topology.world_size} and none of the"
            " server's variables (PMIX_*); let all of mpirun's variables through"
        )
