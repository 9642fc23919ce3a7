"""How long the steps of a run took: one file for each rank, ``steps/rank-0007.jsonl`` in the run's folder.

A first line says who writes; then follow lines with the seconds of the steps since the one before. A run that is
started again goes on in the same file, with a line of its own that says so. A line is written at an epoch's end, and in
a long epoch each minute, so that a step costs one reading of the clock.

Synopsis::

    log = StepLog(run_dir, rank=7, hostname="n2")
    log.append(first_step=0, step_seconds=[2.1, 0.07, 0.07])
    found = read_step_times(run_dir)
    found.ranks[7].step_seconds          # (2.1, 0.07, 0.07)
    found.problems                       # ["steps/rank-0003.jsonl, line 4: ..."]
    recent_rate(found.ranks, world_size=8, samples_per_step=1024)          # samples/s of the last steps
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.records import read_bytes

#: Of the step files; raised when the meaning of a key changes.
SCHEMA_VERSION = 1
_NAME = re.compile(r"rank-\d+\.jsonl")
#: So many steps are recent.
_RECENT = 100


@dataclass(frozen=True)
class RankSteps:
    """The steps of one rank since it was last started.

    Attributes:
        rank: Who took them.
        hostname: Where.
        first_step: Number of the first one, counted from 0 over all epochs.
        step_seconds: How long each one took.
    """

    rank: int
    hostname: str
    first_step: int
    step_seconds: Tuple[float, ...]


@dataclass(frozen=True)
class StepTimes:
    """The steps of all ranks by rank, and what could not be read, a line for each."""

    ranks: Dict[int, RankSteps]
    problems: List[str]


class StepLog:
    """Writes one rank's file.

    Args:
        run_dir: The run's folder; None writes nothing.
        rank: Who writes.
        hostname: Where.
    """

    def __init__(self, run_dir: Optional[Path], rank: int, hostname: str) -> None:
        self._path = None if run_dir is None else _path(run_dir, rank)
        self._start = {"schema_version": SCHEMA_VERSION, "rank": rank, "hostname": hostname}
        self._has_begun = False

    def append(self, first_step: int, step_seconds: Sequence[float]) -> None:
        """Adds steps that follow on those before.

        Raises:
            OSError: The file system does not take them; they are lost, and a later call begins anew.
        """
        if self._path is None:
            return
        line = {"first_step": first_step, "step_seconds": [round(seconds, 7) for seconds in step_seconds]}
        text = json.dumps(line) + "\n"
        if not self._has_begun:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A start that was killed, or a full disk, may have left half a line: this one must not be glued to it.
            text = ("" if _ends_with_newline(self._path) else "\n") + json.dumps(self._start) + "\n" + text
        self._has_begun = False
        with open(str(self._path), "a", encoding="utf-8") as file:
            file.write(text)
        self._has_begun = True


def read_step_times(run_dir: Union[Path, str], most_bytes: Optional[int] = None) -> StepTimes:
    """Reads the files of all ranks; a damaged line is named and skipped, with what needs it.

    Args:
        run_dir: The run's folder.
        most_bytes: Read so much of each file's end, and the first line; None: all of it.
    """
    ranks: Dict[int, RankSteps] = {}
    problems: List[str] = []
    folder = os.path.join(str(run_dir), "steps")
    try:
        names = sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
    except FileNotFoundError:
        names = []
    for name in names:
        path = f"{folder}/{name}"
        content = read_bytes(path) if most_bytes is None else _first_line_and_end(path, most_bytes)
        steps, of_file = parse_steps(content.decode("utf-8", "replace"))
        problems += [f"steps/{name}, {problem}" for problem in of_file]
        if steps is not None:
            ranks[steps.rank] = steps
    return StepTimes(ranks, problems)


def recent_rate(ranks: Mapping[int, RankSteps], world_size: int, samples_per_step: float) -> Optional[float]:
    """Gives the samples/s of the last steps that all ranks have taken, as the slowest of them took them.

    The first step of a start, which compiles, does not count, unless it is the only one. None: not all ranks of the run
    have said how long the same steps took.

    Args:
        ranks: Steps by rank; there may be some of ranks that an earlier start had.
        world_size: Ranks of the run.
        samples_per_step: Of all ranks together.
    """
    mine = [ranks[rank] for rank in range(world_size) if rank in ranks]
    if len(mine) < world_size:
        return None
    begin = max(steps.first_step for steps in mine)
    end = min(steps.first_step + len(steps.step_seconds) for steps in mine)
    begin = max(begin + 1, end - _RECENT) if end - begin > 1 else begin
    slowest = max(
        sum(steps.step_seconds[begin - steps.first_step : end - steps.first_step]) for steps in mine
    )
    return samples_per_step * (end - begin) / slowest if end > begin and slowest > 0 else None


def parse_steps(text: str) -> Tuple[Optional[RankSteps], List[str]]:
    """Reads the steps since the last start from the text of a file, and lists what is wrong with it."""
    start: Optional[Dict[str, Any]] = None
    first_step = 0
    seconds: List[float] = []
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
            if "schema_version" in row:
                if row["schema_version"] != SCHEMA_VERSION:
                    raise ValueError(
                        f"schema {row['schema_version']}, this hpcdl reads {SCHEMA_VERSION}; use a newer one"
                    )
                start, seconds = {"rank": int(row["rank"]), "hostname": str(row["hostname"])}, []
                continue
            of_epoch = list(map(float, row["step_seconds"]))
            first = int(row["first_step"])
        except (ValueError, KeyError, TypeError) as problem:
            problems.append(f"line {number}: {type(problem).__name__}: {problem}")
            continue
        if seconds and first != first_step + len(seconds):
            problems.append(
                f"line {number}: step {first} follows step {first_step + len(seconds) - 1};"
                " the steps before the gap are left out"
            )
            seconds = []
        if not seconds:
            first_step = first
        seconds += of_epoch
    if start is None or not seconds:
        return None, [*problems, "no step of a known rank"]
    return RankSteps(start["rank"], start["hostname"], first_step, tuple(seconds)), problems


def _first_line_and_end(path: str, most_bytes: int) -> bytes:
    with open(path, "rb") as file:
        first = file.readline()
        at = file.seek(0, os.SEEK_END) - most_bytes
        file.seek(max(at, len(first)))
        if at > len(first):
            file.readline()  # which began before
        return first + file.read()


def _path(run_dir: Path, rank: int) -> Path:
    return run_dir / "steps" / f"rank-{rank:04d}.jsonl"


def _ends_with_newline(path: Path) -> bool:
    try:
        with open(str(path), "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except FileNotFoundError:
        return True
