"""A study that was measured: read from its folder, nothing of it written a second time.

Synopsis::

    study = read_study(Path("bench/first"))
    row = study.rows[0]
    row.num_replicas, row.rate.median, row.speed_up, row.efficiency
    print(summary(study))
"""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.saying import count
from hpcdl.launch.bench.batches import check_batches_taken
from hpcdl.launch.bench.causes import sentence
from hpcdl.launch.bench.figures import three_digits, with_spread
from hpcdl.launch.bench.measuring import Measurement, NotMeasured, Window, read_measurement
from hpcdl.launch.bench.planning import PlannedPoint, as_point
from hpcdl.launch.bench.rounds import Round, choose, parse_round
from hpcdl.launch.bench.rows import Points, RankTimes, Row, make_row
from hpcdl.launch.bench.software import Software, Training, distinct, software_of, training_of_run
from hpcdl.launch.bench.words import SCALINGS
from hpcdl.launch.records import Checks, is_count, is_source, is_text, list_of, open_record

#: Of study.json; raised when the meaning of a key changes.
SCHEMA_VERSION = 1
_CHECKS: Checks = {"rounds": is_count, "command": list_of(is_text), "source": is_source}


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        folder: Where it lies.
        name: By which a report tells it from others.
        record: Of ``study.json``.
        run: Of a run's ``run.json``: configuration and versions.
        rows: The weak and strong points, the smallest first.
        num_rounds: The most in which any point was measured, of those that count.
        num_left_out: Rounds that do not count, since something else kept the machine busy and calm ones are enough.
        is_calm: Whether nothing else is known to have kept the machine busy in any round that counts.
        is_watched: Whether it is known of all of them what else ran.
        problems: What could not be read, or is not measured yet, a line for each.
        software: What the measurements ran with; more than one where it changed in between.
        trainings: What they trained, likewise.
    """

    folder: Path
    name: str
    record: Mapping[str, Any]
    run: Mapping[str, Any]
    rows: Tuple[Row, ...]
    num_rounds: int
    num_left_out: int
    is_calm: bool
    is_watched: bool = True
    problems: Tuple[str, ...] = ()
    software: Tuple[Software, ...] = ()
    trainings: Tuple[Training, ...] = ()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Looks for no garbage meanwhile: of the millions of objects that records become all are kept."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_record(folder: Path) -> Dict[str, Any]:
    """Reads ``study.json``.

    Raises:
        BadInput: There is none, it is damaged or foreign, or of a later hpcdl.
    """
    rule = (
        "a study is a folder with a study.json",
        "name another, or measure it again: `hpcdl bench` makes one",
    )
    needed = ("target", "window", "points")
    return open_record(folder / "study.json", "study", SCHEMA_VERSION, needed, _CHECKS, rule)


@_uncollected()
def read_study(folder: Path) -> Study:
    """Reads a study as far as it was measured; what cannot be read is left out, and named.

    Raises:
        BadInput: There is no study, it is of a later hpcdl, a baseline was not measured, or the batches of its points
            are not those of their kind of scaling.
    """
    record = read_record(folder)
    try:
        window = Window.from_json(record["window"])
        planned = [PlannedPoint.from_json(point) for point in record["points"]]
        wanted = int(record["rounds"])
    except (KeyError, TypeError, ValueError, AttributeError, BadInput) as problem:
        raise BadInput(
            f"{folder}/study.json is damaged: {type(problem).__name__}: {problem}; measure the study again"
        ) from problem
    found, problems = _read_rounds(folder, planned, window)
    check_batches_taken(planned, found)
    rounds = _by_round(found)
    chosen = choose(rounds, wanted)
    counting = {r.number for r in chosen.rounds}
    measured = {name: {n: m for n, m in of.items() if n in counting} for name, of in found.items()}
    points = Points(planned, measured, window, has_rounds=not record.get("site"))
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
        folder.resolve().name,
        record,
        run,
        tuple(rows),
        max(len(of_point) for of_point in measured.values()),
        len(rounds) - len(chosen.rounds),
        all(m.is_calm for m in every),
        all(m.load is not None for m in every),
        tuple(problems),
        distinct([software_of(m) for m in every]),
        distinct([training_of_run(run) for m in every for run in m.runs]),
    )


def _read_rounds(
    folder: Path, planned: Sequence[PlannedPoint], window: Window
) -> Tuple[Dict[str, Dict[int, Measurement]], List[str]]:
    """Reads the measurements by point and round, and says what could not be read."""
    measured: Dict[str, Dict[int, Measurement]] = {point.name: {} for point in planned}
    as_points = {point.name: as_point(point) for point in planned}
    problems: List[str] = []
    for at in sorted(folder.glob("round-*")):
        number = parse_round(at.name)
        if number is None:
            problems.append(f"left out: {at} is no round")
            continue
        for point in planned:
            try:
                measurement = read_measurement(as_points[point.name], window, f"{at}/{point.name}")
            except NotMeasured:
                continue
            except BadInput:  # of a later hpcdl: what the others mean beside it is not known either
                raise
            except HpcdlError as problem:
                problems.append(f"left out: {problem}")
                continue
            measured[point.name][number] = measurement
            problems += measurement.problems
    return measured, problems


def _by_round(measured: Mapping[str, Mapping[int, Measurement]]) -> List[Round]:
    numbers = sorted({number for of_point in measured.values() for number in of_point})
    return [Round(n, {name: of[n] for name, of in measured.items() if n in of}) for n in numbers]


def tell_load(study: Study) -> List[str]:
    """Says what is known of what else ran meanwhile, where a reader must know it."""
    said = []
    if not study.is_watched:
        said.append("What else ran on the nodes was not looked at in all of the rounds.")
    if not study.is_calm:
        said.append("Something else kept the machine busy in some of the rounds: take the figures with care.")
    return said


def _first(problems: Sequence[str]) -> str:
    return f" ({problems[0]})" if problems else ""


def summary(study: Study) -> str:
    """Writes a study in a few lines."""
    loaded = "" if study.is_calm else "; SOME UNDER FOREIGN LOAD"
    if study.num_left_out:
        loaded = f"; {study.num_left_out} more under foreign load left out{loaded}"
    given = "too few for intervals: a quick look, no evidence"
    if any(row.efficiency.has_interval for row in study.rows):
        given = "median (95 % interval)"
    lines = [f"{study.record['target']}: {count(study.num_rounds, 'round')}{loaded}; {given}", ""]
    for row in study.rows:
        label = "  functional, not performance" if row.planned.is_functional_only else ""
        lines.append(
            f"  {row.planned.name:<12}{three_digits(row.rate.median):>9} samples/s   speed-up"
            f" {with_spread(row.speed_up):<22} efficiency {with_spread(row.efficiency, 100, '{:.1f}'.format)} %{label}"
        )
        lines += [f"    {text}" for text in explain(row)]
    return "\n".join([*lines, *(f"  {problem}" for problem in study.problems)])


def explain(row: Row) -> List[str]:
    """Says where the time goes."""
    sentences = []
    if row.ceiling is not None and row.machine is not None:
        sentences.append(
            f"{row.planned.num_ranks} independent processes, which exchange nothing, are {with_spread(row.machine)}"
            f" times as fast as one here; the ranks reach {with_spread(row.ceiling, 100, '{:.0f}'.format)} % of that"
        )
    if row.lost:
        sentences.append(sentence(row.lost, row.efficiency, row.planned.scaling))
    if row.parts_ms:
        step = ", ".join(f"{name} {with_spread(of)}" for name, of in row.parts_ms.items())
        sentences.append(f"In a step, in ms: {step}")
    if len(row.ranks) > 1 and row.parts_ms:
        sentences.append(f"The ranks one by one: {_spread(row.ranks)}")
    if row.slow_ranks:
        sentences.append(f"slower than the others: {', '.join(row.slow_ranks)}")
    if row.num_loaded:
        sentences.append(f"something else ran meanwhile in {row.num_loaded} round(s)")
    return sentences


def _spread(ranks: Sequence[RankTimes]) -> str:
    """Writes between what times the ranks lie; each one's are in the report's JSON."""
    said = []
    for what, values in (
        ("compute", [rank.compute_ms for rank in ranks]),
        ("input", [rank.input_ms for rank in ranks]),
        ("wait for the others and the exchange", [rank.wait_ms for rank in ranks]),
    ):
        known = [value for value in values if value is not None]
        if known:
            said.append(f"{what} {three_digits(min(known))} to {three_digits(max(known))} ms")
    return ", ".join(said)
