"""Times MPI's own sums over ranks: ``python -m hpcdl.launch.bench.mpi_allreduce FILE REPEATS BYTES...``, on each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, List

import numpy as np

from hpcdl.common.exchange_times import time_exchanges, write_times


def main(path: str, repeats: str, *sizes: str) -> None:
    """Times, and writes on rank 0."""
    import mpi4py
    from mpi4py import MPI  # which starts MPI when it is imported

    world = MPI.COMM_WORLD

    def prepare(size: int) -> Callable[[], object]:
        message, total = np.zeros(size // 4, np.float32), np.empty(size // 4, np.float32)
        return lambda: world.Allreduce(message, total, op=MPI.SUM)

    def slowest(seconds: List[float]) -> List[float]:
        mine, worst = np.array(seconds), np.empty(len(seconds))
        world.Allreduce(mine, worst, op=MPI.MAX)
        return [float(s) for s in worst]

    times = time_exchanges([int(size) for size in sizes], int(repeats), world.Barrier, prepare, slowest)
    if world.Get_rank() == 0:
        write_times(Path(path), times, {"mpi4py": mpi4py.__version__, "numpy": np.__version__})


if __name__ == "__main__":
    main(*sys.argv[1:])
