"""What a report is made of: studies, runs that were trained to the end, and records of `hpcdl bench allreduce`.

Synopsis::

    sources = read_sources([Path("bench/first"), Path("runs/one"), Path("bench/allreduce-2.json")])
    sources.studies, sources.runs, sources.sums
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.files import is_there
from hpcdl.launch.bench.study import Study, read_study
from hpcdl.launch.bench.sums import read_sums
from hpcdl.launch.show import RunFiles, read_run

_RULE = "a report is made of folders of studies and runs, and of files of hpcdl bench allreduce"


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
        BadInput: A path holds none of these, or a study is named twice.
    """
    studies: List[Study] = []
    runs: List[RunFiles] = []
    sums: List[Dict[str, Any]] = []
    for path in paths:
        try:
            holds = next(
                (name for name in ("", "study.json", "run.json") if is_there(S_ISREG, path / name)), None
            )
        except OSError as problem:
            raise BadInput(
                f"{_RULE}; received {path}, into which nobody may look: {problem.strerror}; name another"
            ) from problem
        if holds is None:
            raise BadInput(f"{_RULE}; received {path}, which {_what_else(path)}")
        if holds == "":
            sums.append(read_sums(path))
        elif holds == "study.json":
            studies.append(read_study(path))
        else:
            runs.append(read_run(path))
    return Sources(_told_apart(studies), tuple(runs), tuple(sums))


def _what_else(path: Path) -> str:
    """Says what a path is that holds no record, and what to name instead."""
    if not path.is_dir():
        return "is not there; name another"
    if any(os.path.exists(one / name) for one in path.glob("*") for name in ("study.json", "run.json")):
        return f"holds such folders; name them: {path}/*"
    return "has neither a study.json nor a run.json; name another"


def _told_apart(studies: Sequence[Study]) -> Tuple[Study, ...]:
    """Names each study by as much of the end of its path as no other has."""
    paths = [study.folder.resolve() for study in studies]
    twice = [str(path) for i, path in enumerate(paths) if path in paths[:i]]
    if twice:
        raise BadInput(f"a report has each study once; received {', '.join(twice)} again; leave it out")
    return tuple(
        replace(study, name=_shortest_end(path, [other for other in paths if other != path]))
        for study, path in zip(studies, paths)
    )


def _shortest_end(path: Path, others: Sequence[Path]) -> str:
    ends = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
    return str(Path(*next(end for end in ends if all(other.parts[-len(end) :] != end for other in others))))
