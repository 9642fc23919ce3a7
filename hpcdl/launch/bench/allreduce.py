"""The command ``hpcdl bench allreduce``: what sums over all ranks of a node cost by size, Horovod against MPI itself.

Both are started in the same way, on the same cores, and sum messages of the same sizes; their launches alternate. The
difference is what Horovod's negotiation and copies add. Bandwidth is that of each link in a ring, 2 (p-1)/p n / t.

Synopsis::

    sys.exit(main(["--np", "2", "--json", "allreduce.json"]))
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import EXIT_DONE, BadInput, HpcdlError
from hpcdl.common.exchange_times import bus_bandwidth, read_times
from hpcdl.common.load import Load, read_busy, span
from hpcdl.common.options import OptionParser, at_least, file_to_write, option, switch, take
from hpcdl.common.provenance import environment_that_matters
from hpcdl.common.records import write_json
from hpcdl.common.saying import say
from hpcdl.launch.bench.sums import PROGRAMS, SCHEMA_VERSION, medians
from hpcdl.launch.git import own_source
from hpcdl.launch.machine import read_machine
from hpcdl.launch.mpirun import find_mpirun, read_version
from hpcdl.launch.placement import Placement, place
from hpcdl.launch.ranks import run_ranks
from hpcdl.launch.surroundings import processor

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_NUMBER_BYTES = 4


def _sizes(what: str, text: str) -> Tuple[int, ...]:
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]+)([KMG]?)", part)
        size = 0 if match is None else int(match.group(1)) * _UNITS[match.group(2)]
        if size == 0 or size % _NUMBER_BYTES:
            raise BadInput(
                f"{what} must list sizes of whole float32 numbers, in bytes: multiples of {_NUMBER_BYTES},"
                f" with K, M or G behind for 2^10, 2^20 or 2^30; received {part!r}; pass e.g. 4K"
            )
        sizes.append(size)
    return tuple(sizes)


@dataclass(frozen=True)
class AllreduceOptions:
    """What is measured."""

    np: int = option(2, "N", "start N ranks (default: 2)", at_least(2), "-n")
    bytes: Tuple[int, ...] = option(
        tuple(4**i for i in range(5, 14)),
        "LIST",
        "sum messages of these sizes, e.g. 4K,1M,16M (default: 1K to 64M)",
        _sizes,
    )
    repeats: int = option(20, "N", "time N sums of each size in a launch (default: 20)", at_least(1))
    rounds: int = option(3, "N", "start both N times, in turn (default: 3)", at_least(1))
    oversubscribe: bool = switch("allow more ranks than cores")
    json: Optional[Path] = option(
        None, "FILE", "keep the record in FILE (default: bench/allreduce-TIME.json)", file_to_write
    )


_EPILOG = """\
examples:
  hpcdl bench allreduce
  hpcdl bench allreduce --np 4 --oversubscribe --bytes 4K,4M --json allreduce.json"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench allreduce ARGV``.

    Raises:
        BadInput: The command line is wrong, or asks for more than this machine has.
        HpcdlError: A rank failed.
    """
    prog = "hpcdl bench allreduce"
    description = "Time sums over all ranks of this machine: Horovod's, and MPI's own on the same sizes."
    parser = OptionParser(
        prog, f"{prog} [OPTIONS]", description, _EPILOG, {"what is measured": AllreduceOptions}
    )
    options = take(AllreduceOptions, parser.parse(argv))
    placement = place(read_machine(os.environ), options.np, oversubscribe=options.oversubscribe)
    record = measure(options, placement)
    print(render(record))
    path = options.json or Path("bench") / f"allreduce-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.resolve(), record)
    print(f"record: {path}")
    return EXIT_DONE


def measure(options: AllreduceOptions, placement: Placement) -> Dict[str, Any]:
    """Starts both programs in turn and gathers their times."""
    mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    environ = {**os.environ, "HPCDL_CONTROLLER": "mpi", "TF_CPP_MIN_LOG_LEVEL": "3"}
    times: Dict[str, Dict[int, List[float]]] = {who: {size: [] for size in options.bytes} for who in PROGRAMS}
    versions: Dict[str, Dict[str, Optional[str]]] = {}
    loads: List[Load] = []
    with tempfile.TemporaryDirectory(prefix="hpcdl-allreduce-") as folder:
        for number in range(options.rounds):
            for who, program in PROGRAMS.items():
                place_of_logs = Path(folder) / f"{who}-{number}"
                place_of_logs.mkdir()
                answer = place_of_logs / "times.json"
                words = [sys.executable, "-m", program, str(answer), str(options.repeats)]
                say(f"round {number + 1} of {options.rounds}: {who}, {options.np} ranks")
                before = read_busy()
                outcome = run_ranks(
                    [*words, *map(str, options.bytes)], placement, place_of_logs, environ, mpirun
                )
                loads.append(span(before, read_busy()).load)
                if outcome.status != EXIT_DONE:
                    logs = [path.read_text(errors="replace") for path in place_of_logs.glob("*.log")]
                    last = " | ".join("\n".join(logs).strip().splitlines()[-3:])
                    raise HpcdlError(f"{program} ended with status {outcome.status}: {last}")
                found, versions[who] = read_times(answer)
                for size, seconds in found.items():
                    times[who][size] += seconds
    source = own_source()
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "allreduce",
        "num_ranks": options.np,
        "num_nodes": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hostname": read_machine(os.environ).hostname,
        "processor": processor(),
        "versions": versions,
        "source": None if source is None else asdict(source),
        "environ": environment_that_matters(environ),
        "mpi": f"{mpirun.kind} {mpirun.version}",
        "placement": placement.describe(),
        "foreign_cores": [round(load.cores, 3) for load in loads],
        "is_calm": all(load.is_calm for load in loads),
        "seconds": {who: {str(n): of for n, of in by_size.items()} for who, by_size in times.items()},
    }


def render(record: Mapping[str, Any]) -> str:
    """Writes the record as a table."""
    loaded = "" if record["is_calm"] else "; UNDER FOREIGN LOAD"
    lines = [
        f"sums over {record['num_ranks']} ranks on one node ({record['placement']}, {record['mpi']}); medians{loaded}",
        "",
        f"{'bytes':>12}{'MPI us':>12}{'Horovod us':>12}{'added us':>12}{'MPI GB/s':>12}{'Horovod GB/s':>14}",
    ]
    for size, bare, whole in medians(record):
        rates = [bus_bandwidth(size, record["num_ranks"], seconds) / 1e9 for seconds in (bare, whole)]
        lines.append(
            f"{size:12d}{1e6 * bare:12.1f}{1e6 * whole:12.1f}{1e6 * (whole - bare):12.1f}"
            f"{rates[0]:12.2f}{rates[1]:14.2f}"
        )
    return "\n".join(lines)
