"""What a report is made of: studies, runs that were trained to the end, and records of `hpcdl bench allreduce`.

Synopsis::

    sources = read_sources([Path("bench/first"), Path("runs/one"), Path("bench/allreduce-2.json")])
    sources.studies, sources.runs, sources.sums
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.records import read_json
from hpcdl.launch.bench.allreduce import SCHEMA_VERSION
from hpcdl.launch.bench.study import Study, read_study
from hpcdl.launch.show import RunFiles, read_run


@dataclass(frozen=True)
class Sources:
    """What was read, in the order in which it was named.

    Attributes:
        studies: Of `hpcdl bench`.
        runs: Whole trainings, which may have reached a target.
        sums: Records of `hpcdl bench allreduce`.
    """

    studies: Tuple[Study, ...]
    runs: Tuple[RunFiles, ...]
    sums: Tuple[Mapping[str, Any], ...]


def read_sources(paths: Sequence[Path]) -> Sources:
    """Reads what paths name: the folder of a study or a run, the file of a record.

    Raises:
        BadInput: A path holds none of these.
    """
    studies: List[Study] = []
    runs: List[RunFiles] = []
    sums: List[Dict[str, Any]] = []
    for path in paths:
        if path.is_file():
            sums.append(_read_sums(path))
        elif (path / "run.json").is_file() and not (path / "study.json").is_file():
            runs.append(read_run(path))
        else:
            studies.append(read_study(path))
    return Sources(tuple(studies), tuple(runs), tuple(sums))


def _read_sums(path: Path) -> Dict[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"a file must be a record of `hpcdl bench allreduce`; received {path}: {problem}"
        ) from problem
    if record.get("kind") != "allreduce" or record.get("schema_version") != SCHEMA_VERSION:
        raise BadInput(
            f"a file must be a record of `hpcdl bench allreduce` of schema {SCHEMA_VERSION}; received {path}, of kind"
            f" {record.get('kind')!r} and schema {record.get('schema_version')!r}; leave it out"
        )
    return record
