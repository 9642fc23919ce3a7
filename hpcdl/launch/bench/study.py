"""A study that was measured: read from its folder, nothing of it written a second time.

Synopsis::

    study = read_study(Path("bench/first"))
    row = study.rows[0]
    row.num_replicas, row.rate.median, row.speed_up, row.efficiency
    print(summary(study))
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.records import read_json
from hpcdl.launch.bench.causes import sentence
from hpcdl.launch.bench.measuring import Measurement, Point, Window, read_measurement
from hpcdl.launch.bench.planning import SCALINGS, PlannedPoint
from hpcdl.launch.bench.rows import Points, RankTimes, Row, make_row
from hpcdl.launch.bench.software import Software, distinct, software_of

#: Of study.json; raised when the meaning of a key changes.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        folder: Where it lies.
        record: Of ``study.json``.
        run: Of a run's ``run.json``: configuration and versions.
        rows: The weak and strong points, the smallest first.
        num_rounds: The most in which any point was measured.
        is_calm: Whether nothing else is known to have kept the machine busy in any of them.
        problems: What could not be read, or is not measured yet, a line for each.
        software: What the measurements ran with; more than one where it changed in between.
    """

    folder: Path
    record: Mapping[str, Any]
    run: Mapping[str, Any]
    rows: Tuple[Row, ...]
    num_rounds: int
    is_calm: bool
    problems: Tuple[str, ...] = ()
    software: Tuple[Software, ...] = ()


def read_study(folder: Path) -> Study:
    """Reads a study as far as it was measured; what cannot be read is left out, and named.

    Raises:
        BadInput: There is no study, it is of a later hpcdl, or a baseline was not measured.
    """
    try:
        record = read_json(folder / "study.json")
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"a study is a folder with a study.json; received {folder}: {problem}; `hpcdl bench` makes one"
        ) from problem
    if record.get("kind") != "study" or record.get("schema_version") != SCHEMA_VERSION:
        raise BadInput(
            f"this hpcdl reads studies of schema {SCHEMA_VERSION}; received {folder}, of kind"
            f" {record.get('kind')!r} and schema {record.get('schema_version')!r}; read it with the hpcdl that made it"
        )
    try:
        window = Window(**record["window"])
        planned = [PlannedPoint(**{"scaling": _scaling(point), **point}) for point in record["points"]]
    except (KeyError, TypeError) as problem:
        raise BadInput(f"{folder}/study.json lacks {problem}; measure the study again") from problem
    measured, problems = _read_rounds(folder, planned, window)
    points = Points(planned, measured, window)
    rows = []
    for point in planned:
        if point.kind in SCALINGS and measured[point.name]:
            base = points.baseline(point)
            if not measured[base.name]:
                raise BadInput(
                    f"efficiency is told against the smallest point; received {folder}, in which {base.name} was not"
                    " measured; `hpcdl bench --study` goes on with it"
                )
            rows.append(make_row(points, point))
    if not rows:
        raise BadInput(
            f"a study needs one point that was measured; {folder} has none{_first(problems)};"
            " `hpcdl bench --study` goes on with it"
        )
    every = [m for of_point in measured.values() for m in of_point.values()]
    run = next(m.runs[0] for m in measured[rows[0].planned.name].values())
    return Study(
        folder,
        record,
        run,
        tuple(rows),
        max(len(of_point) for of_point in measured.values()),
        all(m.is_calm for m in every),
        tuple(problems),
        distinct([software_of(m) for m in every]),
    )


def _read_rounds(
    folder: Path, planned: Sequence[PlannedPoint], window: Window
) -> Tuple[Dict[str, Dict[int, Measurement]], List[str]]:
    """Reads the measurements by point and round, and says what could not be read."""
    measured: Dict[str, Dict[int, Measurement]] = {point.name: {} for point in planned}
    as_points = {point.name: _as_point(point) for point in planned}
    problems: List[str] = []
    for at in sorted(folder.glob("round-*")):
        number = int(at.name.partition("-")[2])
        for point in planned:
            if not os.path.exists(f"{at}/{point.name}/measurement.json"):
                continue
            try:
                measurement = read_measurement(as_points[point.name], window, at / point.name)
            except HpcdlError as problem:
                problems.append(f"left out: {problem}")
                continue
            measured[point.name][number] = measurement
            problems += measurement.problems
    return measured, problems


def _first(problems: Sequence[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def _scaling(point: Mapping[str, Any]) -> str:
    """Tells it for a study that was made before points said it."""
    return "strong" if point["kind"] == "strong" else "weak"


def summary(study: Study) -> str:
    """Writes a study in a few lines."""
    loaded = "" if study.is_calm else "; SOME UNDER FOREIGN LOAD"
    lines = [f"{study.record['target']}: {study.num_rounds} round(s){loaded}; median (95 % interval)", ""]
    for row in study.rows:
        label = "  functional, not performance" if row.planned.is_functional_only else ""
        lines.append(
            f"  {row.planned.name:<12}{row.rate.median:9.0f} samples/s   speed-up {row.speed_up!s:<24}"
            f" efficiency {100 * row.efficiency.median:.0f} %{label}"
        )
        lines += [f"    {text}" for text in explain(row)]
    return "\n".join([*lines, *(f"  {problem}" for problem in study.problems)])


def explain(row: Row) -> List[str]:
    """Says where the time goes."""
    sentences = []
    if row.ceiling is not None:
        sentences.append(
            f"{100 * row.ceiling.median:.0f} % of what {row.planned.num_ranks} independent processes do here"
        )
    if row.lost:
        sentences.append(sentence({name: of.median for name, of in row.lost.items()}, row.planned.scaling))
    if row.parts_ms:
        step = ", ".join(f"{name} {of.median:.1f} ms" for name, of in row.parts_ms.items())
        sentences.append(f"In a step: {step}")
    if len(row.ranks) > 1 and row.parts_ms:
        sentences.append(f"The ranks by themselves: {_spread(row.ranks)}")
    if row.slow_ranks:
        sentences.append(f"slower than the others: {', '.join(row.slow_ranks)}")
    if row.num_loaded:
        sentences.append(f"something else ran meanwhile in {row.num_loaded} round(s)")
    return sentences


def _spread(ranks: Sequence[RankTimes]) -> str:
    """Writes between what times the ranks lie; each one's are in the report's JSON."""
    compute = [rank.compute_ms for rank in ranks]
    inputs = [rank.input_ms for rank in ranks if rank.input_ms is not None]
    said = f"compute {min(compute):.1f} to {max(compute):.1f} ms"
    return f"{said}, input {min(inputs):.1f} to {max(inputs):.1f} ms" if inputs else said


def _as_point(planned: PlannedPoint) -> Point:
    """Gives a point that can only be read."""
    return Point(planned.name, lambda _: (), planned.num_ranks if planned.kind == "ceiling" else 1)
