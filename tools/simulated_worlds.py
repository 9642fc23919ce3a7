"""What hpcdl itself costs a rank, by the size of the world: simulated worlds, up to 27,360 ranks, on one core.

Timed is hpcdl's own code as the last rank of a world runs it, all sizes in each of some rounds, of which the quickest
counts. Collectives give what that many ranks would, without a network. Compilation, the exchange and the start of
TensorFlow are not in it.

Synopsis::

    python tools/simulated_worlds.py                          # prints the table of docs/benchmarking.md
    python tools/simulated_worlds.py --ranks 1,64,27360 --json worlds.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

import numpy as np  # noqa: E402

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE  # noqa: E402
from hpcdl.common.load import Load, read_busy, span  # noqa: E402
from hpcdl.common.records import write_json  # noqa: E402
from hpcdl.common.schedule import resolve_batches  # noqa: E402
from hpcdl.common.step_times import StepLog  # noqa: E402
from hpcdl.common.topology import read_topology  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402
from hpcdl.launch.git import source_of  # noqa: E402
from hpcdl.launch.surroundings import processor  # noqa: E402
from hpcdl.runtime import agreement  # noqa: E402
from hpcdl.runtime.feed import Order, place  # noqa: E402
from hpcdl.runtime.processes import Alone, HorovodProcesses  # noqa: E402
from hpcdl.runtime.record import now, versions  # noqa: E402
from tools.environments import guarded  # noqa: E402

RANKS = (1, 8, 64, 512, 4096, 27_360)
RANKS_PER_NODE = 6
BATCH_SIZE = 32  # of a replica
NUM_SAMPLES = 1_281_167  # of ImageNet
STEPS_IN_LOG = 100
#: Parts of what ranks agree on before the first step, as large as those of ResNet-50.
PARTS = {f"part {i}": ["a layer of it", [3, 3, 256, 256]] * 20 for i in range(20)}


@dataclass(frozen=True)
class Work:
    """Something that a rank does: how often it is timed, and how many equal parts the time is of."""

    do: Callable[[], object]
    repeats: int = 51
    parts: int = 1


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


def works(num_ranks: int, folder: Path) -> Dict[str, Work]:
    """Gives what the last rank of a world does, by its name."""
    world: Any = Alone() if num_ranks == 1 else World(num_ranks)
    environ = environ_of_last_rank(num_ranks)
    order = Order(NUM_SAMPLES, BATCH_SIZE * num_ranks, seed=0)
    permutation = order.permutation(0)
    log = StepLog(folder / str(num_ranks), num_ranks - 1, "n1")
    seconds = [0.0701234] * STEPS_IN_LOG

    def share() -> None:
        place(len(order.cut(permutation, 0)), num_ranks - 1, num_ranks)

    return {
        "topology": Work(lambda: read_topology(environ, "n1")),
        "batches": Work(lambda: resolve_batches(per_replica=BATCH_SIZE, num_replicas=num_ranks)),
        "share of a step": Work(share),
        "record of a step": Work(lambda: log.append(0, seconds), parts=STEPS_IN_LOG),
        "agreement": Work(lambda: agreement.check(world, PARTS), repeats=21),
        "times of an epoch": Work(lambda: world.gather(np.zeros(1)).max(axis=0)),
    }


def measure(num_ranks: int, folder: Path) -> Dict[str, float]:
    """Times each thing that a rank does, in microseconds; the median of some repeats."""
    return {name: _time(work) for name, work in works(num_ranks, folder).items()}


def quickest(rounds: Sequence[Dict[int, Dict[str, float]]]) -> Dict[int, Dict[str, float]]:
    """Takes the least time of the rounds: what others do on the machine only adds to it."""
    first, *_ = rounds
    return {
        ranks: {name: min(found[ranks][name] for found in rounds) for name in times}
        for ranks, times in first.items()
    }


def _time(work: Work) -> float:
    work.do()
    times: List[float] = []
    for _ in range(work.repeats):
        begin = time.perf_counter()
        work.do()
        times.append(time.perf_counter() - begin)
    return 1e6 * median(times) / work.parts


def make_table(found: Dict[int, Dict[str, float]]) -> Table:
    """Writes the times as a table, in microseconds."""
    head = ("ranks", *(f"{name}, us" for name in next(iter(found.values()))))
    rows = [(str(ranks), *map(_microseconds, times.values())) for ranks, times in found.items()]
    return Table(head, tuple(rows))


def _microseconds(us: float) -> str:
    return f"{us:.1f}" if us < 10 else f"{us:.0f}"


def make_record(found: Dict[int, Dict[str, float]], load: Load) -> Dict[str, Any]:
    """Adds where, when, with what, and how busy the machine was otherwise."""
    source = source_of(ROOT / "hpcdl")
    return {
        "schema_version": 1,
        "kind": "simulated worlds",
        "created": now(),
        "processor": processor(),
        "num_cores": load.num_cores,
        "foreign_cores": round(load.cores, 2),
        "versions": versions(),
        "source": None if source is None else asdict(source),
        "microseconds": {str(ranks): times for ranks, times in found.items()},
    }


def main(argv: Sequence[str]) -> int:
    """Measures, prints the table, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/simulated_worlds.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--ranks", metavar="LIST", default=",".join(map(str, RANKS)), help="sizes of worlds")
    parser.add_argument(
        "--rounds", metavar="N", default="7", help="measure all sizes in N rounds (default: 7)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep a record in FILE as well")
    arguments = parser.parse_args(argv)
    ranks = [parse_whole_number("--ranks", text) for text in arguments.ranks.split(",")]
    rounds = parse_whole_number("--rounds", arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        before = read_busy()
        found = quickest([{count: measure(count, Path(folder)) for count in ranks} for _ in range(rounds)])
        load = span(before, read_busy()).load
    print(to_markdown(make_table(found)), end="")
    print(f"meanwhile others used {load.cores:.1f} of {load.num_cores} cores", file=sys.stderr)
    if arguments.json:
        write_json(arguments.json.resolve(), make_record(found, load))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
