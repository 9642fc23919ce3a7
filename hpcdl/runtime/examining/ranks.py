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
from typing import List, Tuple

from hpcdl.common.probe import look_around
from hpcdl.common.records import write_json
from hpcdl.common.topology import own_devices, read_topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime.examining.shared import look_for_shared, tidy_shared
from hpcdl.runtime.use import note_use

_BYTES = 16 * 2**20
_TIMES = 5
#: Ranks that cannot meet, since their MPI and srun's PMI do not suit each other, may wait for ever.
_MEETING_S = 180
#: Where they only wait for one that does not come, they name it before.
_WAITING_S = 150.0


def main(argv: List[str]) -> None:
    """Runs one rank."""
    is_quick = argv[:1] == ["--quick"]
    folders = argv[1:] if is_quick else argv
    note_use(os.environ)  # what runs on several ranks and trains nothing is refused else
    status_dir = Path(os.environ["HPCDL_STATUS_DIR"])
    topology = read_topology(os.environ, socket.gethostname())
    names = ("rank", "local_rank", "node_rank", "world_size")
    place = {name: getattr(topology, name) for name in names}
    seen = {**place, **look_around(folders, os.environ)}
    for folder, problem in zip(folders, look_for_shared(folders, status_dir, topology.rank)):
        seen["folders"][folder] = seen["folders"][folder] or problem
    write_json(status_dir / f"seen-{topology.rank:04d}.json", seen)
    if topology.rank == 0:
        tidy_shared(folders, status_dir, topology.world_size)
    if is_quick:
        return
    import tensorflow as tf

    from hpcdl.runtime.processes import Alone, start_horovod

    settings = RunSettings.from_environ(os.environ)
    num_gpus, on_gpu = _take_gpus(settings.replicas_per_process or 1, topology.local_rank)
    # Also a thread that waits in C++ is ended by this, with its stack in the rank's log.
    faulthandler.dump_traceback_later(_MEETING_S, exit=True)
    started = time.monotonic()
    processes = (
        Alone()
        if topology.world_size == 1
        else start_horovod(topology, settings.controller, os.environ, _WAITING_S)
    )
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
        "gpus": num_gpus,
        "on_gpu": on_gpu,  # the sums
    }
    write_json(status_dir / f"met-{topology.rank:04d}.json", {**place, **met})


def _take_gpus(replicas: int, local_rank: int) -> Tuple[int, bool]:
    """Takes this rank's GPUs as a run does, or none where there are too few: it is to meet the others all the same.

    Returns:
        How many GPUs TensorFlow finds, and whether this rank has taken its own.
    """
    import tensorflow as tf

    from hpcdl.runtime.devices import pin_devices

    num_gpus = len(tf.config.list_physical_devices("GPU"))
    has_own = num_gpus > max(own_devices(num_gpus, replicas, local_rank))
    if has_own:
        pin_devices(replicas, local_rank)
    else:
        tf.config.set_visible_devices([], "GPU")
    return num_gpus, has_own


if __name__ == "__main__":
    main(sys.argv[1:])
