"""Times Horovod's sums over all ranks: ``python -m hpcdl.runtime.allreduce FILE REPEATS BYTES...``, on each rank."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Callable, List

import numpy as np
import tensorflow as tf

from hpcdl.common.exchange_times import time_exchanges, write_times
from hpcdl.common.topology import read_topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime.processes import start_horovod
from hpcdl.runtime.record import libraries, versions


def main(path: str, repeats: str, *sizes: str) -> None:
    """Times, and writes on rank 0."""
    topology = read_topology(os.environ, socket.gethostname())
    processes = start_horovod(topology, RunSettings.from_environ(os.environ).controller, os.environ)

    def prepare(size: int) -> Callable[[], object]:
        message = tf.zeros([size // 4], tf.float32)

        @tf.function
        def exchange(tensor: tf.Tensor) -> List[tf.Tensor]:
            return processes.sum([tf.identity(tensor)])

        return lambda: exchange(message)

    def slowest(seconds: List[float]) -> List[float]:
        return [float(s) for s in processes.gather(np.array(seconds)).max(axis=0)]

    times = time_exchanges([int(size) for size in sizes], int(repeats), processes.barrier, prepare, slowest)
    if processes.rank == 0:
        write_times(Path(path), times, {**versions(), **libraries()})


if __name__ == "__main__":
    main(*sys.argv[1:])
