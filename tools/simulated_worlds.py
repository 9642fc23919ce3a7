"""What hpcdl itself costs a rank, by the size of the world: simulated worlds, up to 27,360 ranks, on one core.

Timed is hpcdl's own code as the last rank of a world runs it. Collectives give what that many ranks would, without a
network. Compilation, the exchange and the start of TensorFlow are not in it.

Synopsis::

    python tools/simulated_worlds.py                          # prints the table of docs/benchmarking.md
    python tools/simulated_worlds.py --ranks 1,64,27360 --json worlds.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

import numpy as np  # noqa: E402

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE  # noqa: E402
from hpcdl.common.records import write_json  # noqa: E402
from hpcdl.common.schedule import resolve_batches  # noqa: E402
from hpcdl.common.step_times import StepLog  # noqa: E402
from hpcdl.common.topology import read_topology  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402
from hpcdl.runtime import agreement  # noqa: E402
from hpcdl.runtime.feed import Order, place  # noqa: E402
from hpcdl.runtime.processes import Alone, HorovodProcesses  # noqa: E402
from tools.environments import guarded  # noqa: E402

RANKS = (1, 8, 64, 512, 4096, 27_360)
RANKS_PER_NODE = 6
BATCH_SIZE = 32  # of a replica
NUM_SAMPLES = 1_281_167  # of ImageNet
STEPS_IN_LOG = 100
#: Parts of what ranks agree on before the first step, as large as those of ResNet-50.
PARTS = {f"part {i}": ["a layer of it", [3, 3, 256, 256]] * 20 for i in range(20)}


class World(HorovodProcesses):
    """The collectives of a world in which all ranks say the same as this one."""

    def __init__(self, size: int) -> None:
        self.rank, self.size = size - 1, size

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Stacks an array of every rank."""
        return np.repeat(np.asarray(array)[np.newaxis], self.size, axis=0)


def environ_of_last_rank(num_ranks: int) -> Dict[str, str]:
    """Gives the variables that srun sets for the last rank."""
    per_node = min(RANKS_PER_NODE, num_ranks)
    nodes, rest = divmod(num_ranks, per_node)
    tasks = f"{per_node}(x{nodes})" + (f",{rest}" if rest else "")
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": str(num_ranks),
        "SLURM_PROCID": str(num_ranks - 1),
        "SLURM_LOCALID": str((rest or per_node) - 1),
        "SLURM_NODEID": str(nodes - (0 if rest else 1)),
        "SLURM_NNODES": str(nodes + bool(rest)),
        "SLURM_STEP_NUM_NODES": str(nodes + bool(rest)),
        "SLURM_STEP_NUM_TASKS": str(num_ranks),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_TASKS_PER_NODE": tasks,
    }


def measure(num_ranks: int, folder: Path) -> Dict[str, float]:
    """Times each thing that a rank does, in microseconds; the median of some repeats."""
    world: Any = Alone() if num_ranks == 1 else World(num_ranks)
    environ = environ_of_last_rank(num_ranks)
    order = Order(NUM_SAMPLES, BATCH_SIZE * num_ranks, seed=0)
    permutation = order.permutation(0)
    log = StepLog(folder / str(num_ranks), num_ranks - 1, "n1")
    seconds = [0.0701234] * STEPS_IN_LOG

    def share() -> None:
        place(len(order.cut(permutation, 0)), num_ranks - 1, num_ranks)

    return {
        "topology": _time(lambda: read_topology(environ, "n1")),
        "batches": _time(lambda: resolve_batches(per_replica=BATCH_SIZE, num_replicas=num_ranks)),
        "share of a step": _time(share),
        "record of a step": _time(lambda: log.append(0, seconds)) / STEPS_IN_LOG,
        "agreement": _time(lambda: agreement.check(world, PARTS), repeats=21),
        "times of an epoch": _time(lambda: world.gather(np.zeros(1)).max(axis=0)),
    }


def _time(work: Callable[[], object], repeats: int = 51) -> float:
    work()
    times: List[float] = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1e6 * median(times)


def make_table(found: Dict[int, Dict[str, float]]) -> Table:
    """Writes the times as a table, in microseconds."""
    head = ("ranks", *(f"{name}, us" for name in next(iter(found.values()))))
    rows = [(str(ranks), *(f"{us:.1f}" for us in times.values())) for ranks, times in found.items()]
    return Table(head, tuple(rows))


def main(argv: Sequence[str]) -> int:
    """Measures, prints the table, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/simulated_worlds.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--ranks", metavar="LIST", default=",".join(map(str, RANKS)), help="sizes of worlds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times to FILE as well")
    arguments = parser.parse_args(argv)
    ranks = [parse_whole_number("--ranks", text) for text in arguments.ranks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = {count: measure(count, Path(folder)) for count in ranks}
    print(to_markdown(make_table(found)), end="")
    if arguments.json:
        write_json(arguments.json.resolve(), {"microseconds": {str(n): times for n, times in found.items()}})
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
