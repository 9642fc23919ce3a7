"""How fast is a step of run.fit beside one of model.fit: in one process, in turns.

The speed of a shared machine wanders further from launch to launch than the two can differ (`tools/speed.py` compares
launches). Here both train the same network on the same data within seconds of each other, each anew in each round, the
one first that was second before.

Synopsis::

    python tools/in_turns.py                                  # 15 rounds of 30 steps: 6 minutes on 2 cores
    python tools/in_turns.py --rounds 2 --json in-turns.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE  # noqa: E402
from hpcdl.common.load import read_busy, span  # noqa: E402
from hpcdl.common.records import write_json  # noqa: E402
from hpcdl.launch.bench.ratios import ratio  # noqa: E402
from hpcdl.launch.git import source_of  # noqa: E402
from hpcdl.launch.surroundings import processor  # noqa: E402
from tools.environments import guarded  # noqa: E402
from tools.speed import BATCH_SIZE, WORKLOAD  # noqa: E402

UNTIMED_STEPS = 10


def measure(name: str, rounds: int, timed_steps: int, folder: Path) -> Dict[str, List[float]]:
    """Trains in turns, and gives the samples/s of each by round."""
    import hpcdl
    from hpcdl.runtime import workloads
    from tools.programs.plain_fit import Times

    workload = workloads.get(name)
    run = hpcdl.init(strategy="single", run_dir=folder)
    arrays = workload.arrays(workload.load(), "float32")
    num_samples = (UNTIMED_STEPS + timed_steps) * BATCH_SIZE
    data = arrays.x_train[:num_samples], arrays.y_train[:num_samples]

    def by_keras(times: Any) -> None:
        workload.build().fit(*data, batch_size=BATCH_SIZE, verbose=0, callbacks=[times])

    def by_hpcdl(times: Any) -> None:
        with run.scope():
            model = workload.build()
        run.fit(model, *data, per_replica_batch_size=BATCH_SIZE, verbose=0, callbacks=[times])

    ways = {"model.fit": by_keras, "run.fit": by_hpcdl}
    rates: Dict[str, List[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways) if number % 2 else reversed(list(ways)):
            times = Times()
            ways[way](times)
            seconds = times.ends[-1] - times.ends[UNTIMED_STEPS]
            rates[way].append((len(times.ends) - 1 - UNTIMED_STEPS) * BATCH_SIZE / seconds)
        of_round = ", ".join(f"{way} {of_way[-1]:.0f}" for way, of_way in rates.items())
        print(f"round {number + 1} of {rounds}: {of_round} samples/s", file=sys.stderr, flush=True)
    return rates


def main(argv: Sequence[str]) -> int:
    """Measures, prints the ratio, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/in_turns.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--workload", metavar="NAME", default=WORKLOAD, help="what is trained")
    parser.add_argument("--rounds", metavar="N", default="15", help="(default: 15)")
    parser.add_argument("--steps", metavar="N", default="30", help="timed ones of each (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep a record in FILE")
    arguments = parser.parse_args(argv)
    rounds = parse_whole_number("--rounds", arguments.rounds)
    timed_steps = parse_whole_number("--steps", arguments.steps)
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", HPCDL_CHECKPOINT_EVERY="never")
    before = read_busy()
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(arguments.workload, rounds, timed_steps, Path(folder) / "run")
    load = span(before, read_busy()).load
    found = ratio(rates["run.fit"], rates["model.fit"])
    loaded = "" if load.is_calm else "; UNDER FOREIGN LOAD"
    print(f"run.fit / model.fit {found}, {found.num_rounds} rounds{loaded}")
    if arguments.json:
        from hpcdl.runtime.record import now, versions

        source = source_of(ROOT / "hpcdl")
        record = {
            "schema_version": 1,
            "kind": "in turns",
            "workload": arguments.workload,
            "batch_size": BATCH_SIZE,
            "timed_steps": timed_steps,
            "samples_per_second": rates,
            "ratio": asdict(found),
            "load": asdict(load),
            "processor": processor(),
            "versions": versions(),
            "source": None if source is None else asdict(source),
            "ended": now(),
        }
        write_json(arguments.json.resolve(), record)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
