"""A record of `hpcdl bench allreduce`: what sums over all ranks took, by who summed and by bytes.

Synopsis::

    record = read_sums(Path("bench/allreduce-2.json"))
    for size, of_mpi_s, of_horovod_s in medians(record):
        bus_bandwidth(size, record["num_ranks"], of_mpi_s)
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.records import check_schema, read_json

SCHEMA_VERSION = 1
#: Who sums -> the program that each rank runs.
PROGRAMS = {"horovod": "hpcdl.runtime.allreduce", "mpi": "hpcdl.launch.bench.mpi_allreduce"}


def read_sums(path: Path) -> Dict[str, Any]:
    """Reads a record.

    Raises:
        BadInput: It is none, of a later hpcdl, or lacks what a report draws.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"a file must be a record of `hpcdl bench allreduce`; received {path}"
            f" ({getattr(problem, 'strerror', None) or problem}); leave it out"
        ) from problem
    if record.get("kind") != "allreduce":
        raise BadInput(
            f"a file must be a record of `hpcdl bench allreduce`; received {path}, of kind {record.get('kind')!r};"
            " leave it out"
        )
    check_schema(record, SCHEMA_VERSION, path)
    if not _is_whole(record):
        raise BadInput(
            f"a record of `hpcdl bench allreduce` has the seconds of both for each size; received {path}, which lacks"
            " them; leave it out"
        )
    return record


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Says whether a record has what a report draws."""
    try:
        sizes = [
            {int(size) for size, seconds in record["seconds"][who].items() if min(map(float, seconds)) > 0}
            for who in PROGRAMS
        ]
        return int(record["num_ranks"]) > 1 and len(sizes[0]) > 0 and sizes[0] == sizes[1]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def medians(record: Mapping[str, Any]) -> List[Tuple[int, float, float]]:
    """Gives each size with the seconds of MPI's sum and of Horovod's."""
    of_mpi, of_horovod = record["seconds"]["mpi"], record["seconds"]["horovod"]
    return [(int(size), median(of_mpi[size]), median(of_horovod[size])) for size in sorted(of_mpi, key=int)]
