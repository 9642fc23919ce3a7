"""Times the guard's comparison of all weights over the ranks, and writes the seconds of each.

Synopsis::

    hpcdl train --np 2 tools/programs/guard_cost.py FILE fashion_mnist/cnn_dropout
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from hpcdl.common.records import write_json
from hpcdl.common.topology import read_topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime import keras_edge, workloads
from hpcdl.runtime.guard import compare
from hpcdl.runtime.processes import start_horovod
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.use import note_use

_REPEATS = 30


def main(path: str, name: str) -> None:
    """Times, and writes on rank 0."""
    note_use(os.environ)  # it does use hpcdl, though not `hpcdl.init`
    topology = read_topology(os.environ, socket.gethostname())
    replicas = Replicas(
        start_horovod(topology, RunSettings.from_environ(os.environ).controller, os.environ), ["CPU:0"]
    )
    model = workloads.get(name).build()
    keras_edge.build_optimizer(model)
    variables = keras_edge.synchronized_variables(model)
    replicas.broadcast(variables)
    seconds = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        compare(replicas, variables, "a comparison that is timed")
        seconds.append(time.perf_counter() - begin)
    if topology.is_rank_0:
        write_json(Path(path), {"seconds": seconds})


if __name__ == "__main__":
    main(*sys.argv[1:])
