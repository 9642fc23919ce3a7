"""How fast is one way to train beside another: in the same processes, in turns.

The speed of a shared machine wanders further from launch to launch than the two can differ (`tools/speed.py` compares
launches). Here both train the same network within seconds of each other (`tools/programs/turns.py`). The pairs are
``keras``: run.fit and model.fit, in one process; and ``input``: run.fit on the data, and on one batch from memory, as
a benchmark on synthetic data has it: what do reading, shuffling and cutting cost?

Synopsis::

    python tools/in_turns.py keras                                     # 15 rounds of 30 steps: 6 minutes on 2 cores
    python tools/in_turns.py input --np 2 --rounds 2 --json input.json
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE  # noqa: E402
from hpcdl.common.load import read_busy, span  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from hpcdl.launch.bench.ratios import ratio  # noqa: E402
from hpcdl.launch.git import source_of  # noqa: E402
from hpcdl.launch.surroundings import processor  # noqa: E402
from tools.environments import guarded  # noqa: E402
from tools.speed import BATCH_SIZE, WORKLOAD, environ_of_programs  # noqa: E402

PAIRS = ("keras", "input")


def main(argv: Sequence[str]) -> int:
    """Measures, prints the ratio, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/in_turns.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("pair", choices=PAIRS, help="what is compared")
    parser.add_argument("--np", metavar="N", default="1", help="ranks; keras has one (default: 1)")
    parser.add_argument("--workload", metavar="NAME", default=WORKLOAD, help="what is trained")
    parser.add_argument("--rounds", metavar="N", default="15", help="(default: 15)")
    parser.add_argument("--steps", metavar="N", default="30", help="timed ones of each (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep a record in FILE")
    arguments = parser.parse_args(argv)
    np = parse_whole_number("--np", arguments.np)
    rounds = parse_whole_number("--rounds", arguments.rounds)
    timed_steps = parse_whole_number("--steps", arguments.steps)
    if arguments.pair == "keras" and np != 1:
        parser.error(f"model.fit trains in one process; received --np {np}")
    before = read_busy()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "turns.json"
        words = ["--np", str(np), "--run-dir", str(Path(folder) / "run")]
        words += ["--log-dir", str(Path(folder) / "logs")] if np > 1 else []
        program = str(ROOT / "tools" / "programs" / "turns.py")
        told = (arguments.pair, arguments.workload, str(rounds), str(timed_steps), str(record))
        status = subprocess.run(
            [sys.executable, "-m", "hpcdl", "train", *words, program, *told],
            env={**os.environ, **environ_of_programs(), "HPCDL_CHECKPOINT_EVERY": "never"},
            stdout=sys.stderr,
            check=False,
        ).returncode
        if status != 0:
            return status  # it said why
        found = read_json(record)
    load = span(before, read_busy()).load
    rates = found["samples_per_second"]
    (first, ours), (second, theirs) = rates.items()
    compared = ratio(ours, theirs)
    loaded = "" if load.is_calm else "; UNDER FOREIGN LOAD"
    print(f"{first} / {second} {compared}, {compared.num_rounds} rounds{loaded}")
    if arguments.json:
        source = source_of(ROOT / "hpcdl")
        kept = {
            "schema_version": 2,
            "kind": "in turns",
            "pair": arguments.pair,
            "workload": arguments.workload,
            "num_ranks": np,
            "batch_size": BATCH_SIZE,
            "timed_steps": timed_steps,
            "samples_per_second": rates,
            "ratio": asdict(compared),
            "load": asdict(load),
            "processor": processor(),
            "versions": found["versions"],
            "source": None if source is None else asdict(source),
            "ended": found["ended"],
        }
        write_json(arguments.json.resolve(), kept)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
