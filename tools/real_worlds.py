"""What a step and an epoch cost a rank, by the size of the world: real ranks of a tiny model, which share the cores.

Each world is one `hpcdl train`, over MPI. Timed is the work of a rank's main thread, whatever it has to wait for: with
more ranks than cores the clock says nothing. `tools/simulated_worlds.py` does the same for worlds that fit no machine.

Synopsis::

    python tools/real_worlds.py                                # 1, 2, 4, 8, 16 and 32 ranks: 10 minutes, 20 GB
    python tools/real_worlds.py --ranks 1,4 --json worlds.json
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE, HpcdlError  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402
from tools.environments import guarded  # noqa: E402

RANKS = (1, 2, 4, 8, 16, 32)


def measure(num_ranks: int, folder: Path) -> List[Dict[str, float]]:
    """Runs one world, and gives what each rank noted.

    Raises:
        HpcdlError: The run failed.
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environ["HPCDL_CHECKPOINT_EVERY"] = "never"
    words = ["train", "--np", str(num_ranks), "--oversubscribe", "--log-dir", str(folder / "logs")]
    program = str(ROOT / "tools" / "programs" / "tiny_run.py")
    argv = [sys.executable, "-m", "hpcdl", *words, "--run-dir", str(folder / "run"), program, str(folder)]
    done = subprocess.run(argv, env=environ, cwd=str(folder), stdout=subprocess.DEVNULL, check=False)
    if done.returncode != EXIT_DONE:
        raise HpcdlError(f"{num_ranks} ranks ended with status {done.returncode}; see above")
    return [read_json(folder / f"rank-{rank}.json") for rank in range(num_ranks)]


def make_table(found: Dict[int, Sequence[Dict[str, float]]]) -> Table:
    """Writes the median over the ranks, and the most."""
    head = ("ranks", "a step, us", "most, us", "an epoch's end, us", "most, us")
    rows = []
    for num_ranks, ranks in found.items():
        cells: List[float] = []
        for name in ("step_us", "epoch_us"):
            values = [rank[name] for rank in ranks]
            cells += [median(values), max(values)]
        rows.append((str(num_ranks), *(f"{value:.0f}" for value in cells)))
    return Table(head, tuple(rows))


def main(argv: Sequence[str]) -> int:
    """Measures, prints the table, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/real_worlds.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--ranks", metavar="LIST", default=",".join(map(str, RANKS)), help="sizes of worlds")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write what each rank noted to FILE as well"
    )
    arguments = parser.parse_args(argv)
    found: Dict[int, Any] = {}
    for text in arguments.ranks.split(","):
        num_ranks = parse_whole_number("--ranks", text)
        print(f"{num_ranks} ranks", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[num_ranks] = measure(num_ranks, Path(folder))
    print(to_markdown(make_table(found)), end="")
    if arguments.json:
        write_json(arguments.json.resolve(), {"ranks": {str(n): ranks for n, ranks in found.items()}})
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
