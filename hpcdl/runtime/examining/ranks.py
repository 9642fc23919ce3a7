"""What each rank of the doctor's job does: looks around, meets the others, adds up. Run as a script by hpcdl.runtime.

It writes ``seen-NNNN.json`` before anything of TensorFlow is loaded, so that what it saw is there even if the rest
fails, and ``met-NNNN.json`` when the ranks have met.

Synopsis::

    python -m hpcdl.runtime ranks.py [--quick] FOLDER...
"""

from __future__ import annotations

import faulthandler
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import List

from hpcdl.common.probe import look_around
from hpcdl.common.records import write_json
from hpcdl.common.topology import read_topology
from hpcdl.common.words import RunSettings

_BYTES = 16 * 2**20
_TIMES = 5
#: Ranks that cannot meet, since their MPI and srun's PMI do not suit each other, may wait for ever.
_MEETING_S = 180


def main(argv: List[str]) -> None:
    """Runs one rank."""
    is_quick = argv[:1] == ["--quick"]
    folders = argv[1:] if is_quick else argv
    status_dir = Path(os.environ["HPCDL_STATUS_DIR"])
    topology = read_topology(os.environ, socket.gethostname())
    place = {"rank": topology.rank, "node_rank": topology.node_rank, "world_size": topology.world_size}
    seen = {**place, **look_around(folders, os.environ)}
    write_json(status_dir / f"seen-{topology.rank:04d}.json", seen)
    if is_quick:
        return
    import tensorflow as tf

    from hpcdl.runtime.processes import Alone, start_horovod

    controller = RunSettings.from_environ(os.environ).controller
    # Also a thread that waits in C++ is ended by this, with its stack in the rank's log.
    faulthandler.dump_traceback_later(_MEETING_S, exit=True)
    started = time.monotonic()
    processes = Alone() if topology.world_size == 1 else start_horovod(topology, controller, os.environ)
    start_s = time.monotonic() - started
    (total,) = processes.sum([tf.constant([1.0])])
    message = tf.zeros([_BYTES // 4], tf.float32)
    seconds, clocks = [], []
    for _ in range(_TIMES):
        processes.barrier()
        clocks.append(time.time())
        started = time.monotonic()
        processes.sum([message])[0].numpy()
        seconds.append(time.monotonic() - started)
    faulthandler.cancel_dump_traceback_later()
    met = {
        "size": processes.size,
        "sum": float(total.numpy()[0]),
        "start_s": start_s,
        "interface": os.environ.get("HOROVOD_GLOO_IFACE"),  # that the meeting took
        "bytes": _BYTES,
        "seconds": statistics.median(seconds),
        "clocks": clocks,  # read as the ranks left the same barrier
        "gpus": len(tf.config.list_physical_devices("GPU")),
    }
    write_json(status_dir / f"met-{topology.rank:04d}.json", {**place, **met})


if __name__ == "__main__":
    main(sys.argv[1:])
