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

from hpcdl.launch.records import is_count, is_number, list_of, object_of, open_record

SCHEMA_VERSION = 1
#: Who sums -> the program that each rank runs.
PROGRAMS = {"horovod": "hpcdl.runtime.allreduce", "mpi": "hpcdl.launch.bench.mpi_allreduce"}


def read_sums(path: Path) -> Dict[str, Any]:
    """Reads a record.

    Raises:
        BadInput: It is none, of a later hpcdl, or lacks what a report draws.
    """
    checks = {"num_ranks": lambda value: is_count(value) and value > 1, "seconds": _are_of_both}
    rule = ("a file must be a record of `hpcdl bench allreduce`", "leave it out")
    return open_record(path, "allreduce", SCHEMA_VERSION, tuple(checks), checks, rule)


def _are_of_both(seconds: Any) -> bool:
    """Says whether there are the seconds of the sums of both, of the same sizes."""
    are_seconds = object_of(lambda value: len(value) > 0 and all(is_number(one) and one > 0 for one in value))
    if not object_of(object_of(list_of(is_number)))(seconds) or not all(map(are_seconds, seconds.values())):
        return False
    sizes = [{size for size in seconds.get(who, {}) if size.isdigit()} for who in PROGRAMS]
    return len(sizes[0]) > 0 and sizes[0] == sizes[1]


def medians(record: Mapping[str, Any]) -> List[Tuple[int, float, float]]:
    """Gives each size with the seconds of MPI's sum and of Horovod's."""
    of_mpi, of_horovod = record["seconds"]["mpi"], record["seconds"]["horovod"]
    return [(int(size), median(of_mpi[size]), median(of_horovod[size])) for size in sorted(of_mpi, key=int)]
