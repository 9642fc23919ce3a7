"""How long `hpcdl bench report` takes on a study of many records, which are copies of a study that was measured.

Synopsis::

    python tools/report_speed.py --records 10000 --json report-speed.json
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.checks import parse_whole_number  # noqa: E402
from hpcdl.common.errors import EXIT_DONE, HpcdlError  # noqa: E402
from hpcdl.common.load import read_busy, span  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from hpcdl.launch.bench.ratios import estimate  # noqa: E402
from hpcdl.launch.git import source_of  # noqa: E402
from hpcdl.launch.surroundings import processor  # noqa: E402
from tools.environments import guarded  # noqa: E402

STUDY = ROOT / "docs" / "benchmarks" / "two-cores" / "scaling"
GOAL_S = 3.0


def main(argv: Sequence[str]) -> int:
    """Measures, prints the seconds, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/report_speed.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument("--records", metavar="N", default="10000", help="at least so many (default: 10000)")
    parser.add_argument("--repeats", metavar="N", default="7", help="reports of each kind (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep a record in FILE")
    arguments = parser.parse_args(argv)
    wanted = parse_whole_number("--records", arguments.records)
    repeats = parse_whole_number("--repeats", arguments.repeats)
    seconds: Dict[str, List[float]] = {"table": [], "table and pictures": []}
    before = read_busy()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        num_records = multiply(STUDY, study, wanted)
        for _ in range(repeats):
            seconds["table"].append(_time(study))
            seconds["table and pictures"].append(_time(study, "--output", str(Path(folder) / "report")))
    load = span(before, read_busy()).load
    loaded = "" if load.is_calm else ", UNDER FOREIGN LOAD"
    print(f"hpcdl bench report on {num_records} records, {repeats} times{loaded}; medians (95 % intervals)")
    for kind, of_kind in seconds.items():
        verdict = estimate([GOAL_S / s for s in of_kind]).verdict(1.0)
        print(f"  {kind:<20}{estimate(of_kind)} s, goal {GOAL_S:g}: {verdict}")
    if arguments.json:
        source = source_of(ROOT / "hpcdl")
        kept: Dict[str, Any] = {
            "schema_version": 1,
            "kind": "report speed",
            "num_records": num_records,
            "seconds": seconds,
            "load": asdict(load),
            "processor": processor(),
            "python": sys.version.split()[0],
            "source": None if source is None else asdict(source),
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(arguments.json.resolve(), kept)
    return EXIT_DONE


def multiply(study: Path, target: Path, wanted: int) -> int:
    """Makes a study whose rounds are copies of those of another one.

    Args:
        study: The other one.
        target: Where to make it; it must not exist.
        wanted: Records that it has at least: as many whole copies of all rounds as that takes.

    Returns:
        The number of records that it has.
    """
    rounds = sorted(study.glob("round-*"))
    each = sum(1 for _ in study.glob("round-*/*/measurement.json"))
    copies = -(-wanted // each)
    for number in range(copies * len(rounds)):
        shutil.copytree(str(rounds[number % len(rounds)]), str(target / f"round-{number:03d}"))
    record = {**read_json(study / "study.json"), "rounds": copies * len(rounds)}
    write_json(target / "study.json", record)
    return copies * each


def _time(study: Path, *options: str) -> float:
    command = [sys.executable, "-m", "hpcdl", "bench", "report", str(study), *options]
    started = time.monotonic()
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != EXIT_DONE:
        raise HpcdlError(f"the report ended with status {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
