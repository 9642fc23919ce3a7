"""Which accuracies the workshop's networks reach through hpcdl, on the whole real data: the figures of docs/results.md.

Each trial is one `hpcdl train`, with the recommended settings but for the epochs. Trials that are done are only read,
so a second start goes on; results of other versions of TensorFlow stay in the file beside those of this one.

Synopsis::

    python tools/results.py --data-dir DIR --json docs/results.json           # all trials, and the table
    python tools/results.py --only fashion_mnist/cnn_dropout --json docs/results.json
    python tools/results.py --table docs/results.json                         # only print the table
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common import workloads  # noqa: E402
from hpcdl.common.errors import EXIT_DONE, HpcdlError  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from hpcdl.common.saying import count  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402
from tools.environments import guarded  # noqa: E402

NETWORKS = ("fc64", "fc512", "fc512x3", "cnn1", "cnn2", "cnn_dropout", "cnn_batchnorm")
WORKLOADS = (*(f"mnist/{network}" for network in NETWORKS), "fashion_mnist/cnn_dropout")
WORLD_SIZES = (1, 2)


def main(argv: Sequence[str]) -> int:
    """Runs the trials that are missing, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="tools/results.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data lie")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="of each trial (default: 5)")
    parser.add_argument("--only", metavar="A,B", help="these workloads only")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), metavar="DIR", help="run folders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add what came out to FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print FILE as a table, and train nothing")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        print(table(read_json(arguments.table)["trials"]))
        return EXIT_DONE
    names = arguments.only.split(",") if arguments.only else list(WORKLOADS)
    for name in names:
        workloads.get(name)
    found = list(trials(names, arguments.epochs, arguments.data_dir, arguments.runs))
    if arguments.json is not None:
        before = read_json(arguments.json)["trials"] if arguments.json.exists() else []
        found = merged(before, found)
        write_json(arguments.json.resolve(), {"schema_version": 1, "trials": found})
    print(table(found))
    return EXIT_DONE


def trials(names: Sequence[str], epochs: int, data_dir: Any, runs: Path) -> Iterator[Dict[str, Any]]:
    """Trains each workload on one rank and on two.

    Raises:
        HpcdlError: A training failed.
    """
    for name in names:
        for world_size in WORLD_SIZES:
            words = ["train", "--np", str(world_size)]
            words += (
                [] if data_dir is None or not name.startswith("mnist/") else ["--data-dir", str(data_dir)]
            )
            told = [*words[:3], name, "--epochs", str(epochs)]
            folder = runs / f"{name.replace('/', '-')}-{world_size}-{_python_tag()}-{epochs}"
            print("hpcdl " + " ".join(told), file=sys.stderr, flush=True)
            argv = [*words, "--run-dir", str(folder), name, "--epochs", str(epochs)]
            environ = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                [sys.executable, "-m", "hpcdl", *argv], env=environ, stdout=subprocess.DEVNULL, check=False
            )
            if done.returncode != 0:
                raise HpcdlError(f"hpcdl {' '.join(argv)} ended with status {done.returncode}; see above")
            yield trial(read_json(folder / "run.json"), "hpcdl " + " ".join(told), name, epochs)


def trial(record: Dict[str, Any], command: str, name: str, epochs: int) -> Dict[str, Any]:
    """Takes of a run's record what the figures need."""
    return {
        "workload": name,
        "world_size": record["topology"]["world_size"],
        "epochs": epochs,
        "command": command,
        "test_accuracy": record["final_metrics"]["val_accuracy"],
        "final_metrics": record["final_metrics"],
        "versions": record["versions"],
        "source": record.get("source"),
        "data": {key: record["data"][key] for key in ("name", "is_synthetic", "sha256")},
        "started": record["started"],
        "samples_per_second": record["samples_per_second"],
    }


def merged(before: Sequence[Dict[str, Any]], found: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Puts new trials in the place of older ones of the same workload, ranks and version of TensorFlow."""
    by_key = {_key(one): one for one in [*before, *found]}
    return [by_key[key] for key in sorted(by_key, key=lambda key: (WORKLOADS.index(key[0]), key[2], key[1]))]


def table(found: Sequence[Dict[str, Any]]) -> str:
    """Writes the accuracies in percent beside the workshop's."""
    rows: Dict[Tuple[str, str], Dict[int, float]] = {}
    epochs: Dict[Tuple[str, str], int] = {}
    for one in found:
        key = (one["workload"], one["versions"]["tensorflow"])
        rows.setdefault(key, {})[one["world_size"]] = 100 * one["test_accuracy"]
        epochs[key] = one["epochs"]
    cells = []
    for (name, version), of_ranks in rows.items():
        workshop = workloads.get(name).workshop_accuracy
        measured = [f"{of_ranks[n]:.2f}" if n in of_ranks else "-" for n in WORLD_SIZES]
        reached = "-" if workshop is None else f"{workshop:.1f}"
        cells.append((name, reached, version, str(epochs[(name, version)]), *measured))
    ranks = [f"{count(n, 'rank')}, %" for n in WORLD_SIZES]
    head = ("workload", "workshop, %", "TensorFlow", "epochs", *ranks)
    return to_markdown(Table(head, tuple(cells)))


def _key(one: Dict[str, Any]) -> Tuple[str, int, str]:
    return one["workload"], one["world_size"], one["versions"]["tensorflow"]


def _python_tag() -> str:
    """Names the environment, since a run folder belongs to one."""
    return Path(sys.prefix).name


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
