"""How long sums over all ranks take, by message size: one loop, whoever sums.

`hpcdl bench allreduce` runs it twice, on the same sizes: with Horovod (`hpcdl.runtime.allreduce`), and with MPI itself
(`hpcdl.launch.bench.mpi_allreduce`).

Synopsis::

    times = time_exchanges([1024, 4096], repeats=20, barrier=comm.Barrier, prepare=prepare, slowest=slowest)
    times[1024]                  # seconds of each repeat, of the slowest rank
    bus_bandwidth(1024, 4, min(times[1024]))                # bytes/s
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.records import write_json

_UNTIMED = 3


def time_exchanges(
    sizes: Sequence[int],
    repeats: int,
    barrier: Callable[[], None],
    prepare: Callable[[int], Callable[[], object]],
    slowest: Callable[[List[float]], List[float]],
) -> Dict[int, List[float]]:
    """Times exchanges; a collective of all ranks.

    Args:
        sizes: Bytes of the messages.
        repeats: Timed exchanges of each size, after some untimed ones.
        barrier: Waits for all ranks.
        prepare: Makes a message of so many bytes, and gives the function that sums it.
        slowest: Gives, of each value, the largest over the ranks.
    """
    times = {}
    for size in sizes:
        exchange = prepare(size)
        seconds = []
        for _ in range(_UNTIMED + repeats):
            barrier()
            begin = time.perf_counter()
            exchange()
            seconds.append(time.perf_counter() - begin)
        times[size] = slowest(seconds[_UNTIMED:])
    return times


def bus_bandwidth(num_bytes: float, num_ranks: int, seconds: float) -> float:
    """Gives the bytes/s that each link carried in an allreduce, whatever its algorithm: 2 (p-1)/p n / t."""
    return 2 * (num_ranks - 1) / num_ranks * num_bytes / seconds


def write_times(path: Path, times: Dict[int, List[float]], versions: Mapping[str, Optional[str]]) -> None:
    """Writes what rank 0 knows: the times, and the versions of what summed; None: not known."""
    seconds = {str(size): of_size for size, of_size in times.items()}
    write_json(path, {"seconds": seconds, "versions": dict(versions)})


def read_times(path: Path) -> Tuple[Dict[int, List[float]], Dict[str, Optional[str]]]:
    """Reads what `write_times` wrote: times and versions."""
    content = json.loads(path.read_text(encoding="utf-8"))
    times = {int(size): list(map(float, seconds)) for size, seconds in content["seconds"].items()}
    return times, content["versions"]
