"""A study that was measured: read from its folder, nothing of it written a second time.

Synopsis::

    study = read_study(Path("bench/first"))
    row = study.rows[0]
    row.num_replicas, row.rate.median, row.speed_up, row.efficiency
    print(summary(study))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.records import read_json
from hpcdl.launch.bench.measuring import Measurement, Point, Window, read_measurement
from hpcdl.launch.bench.planning import PlannedPoint
from hpcdl.launch.bench.ratios import Estimate, estimate, ratio

#: Of study.json; raised when the meaning of a key changes.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """A point of a study, over its rounds.

    Attributes:
        planned: The point.
        per_replica_batch_size: Of a step.
        global_batch_size: Of a step.
        rates: Samples/s of all replicas, round by round.
        rate: Their median.
        standard_error: Of the mean of the rates; None of a single one.
        jitter: Median absolute deviation of the rates from their median.
        step_p50_ms: Median of the timed steps of the slowest rank, over all rounds.
        step_p95_ms: 95th percentile likewise.
        speed_up: Over the smallest point of the same kind, paired by rounds.
        ideal: What the speed-up could be at most.
        efficiency: Speed-up / ideal.
        ceiling: Rate / that of as many independent processes; None where that was not measured.
        without_exchange: Rate / that without the exchange; None likewise.
        slow_ranks: Ranks that were slower than the median rank by more than 5 %, with their host.
        num_loaded: Rounds in which something else kept the machine busy.
    """

    planned: PlannedPoint
    per_replica_batch_size: int
    global_batch_size: int
    rates: Tuple[float, ...]
    rate: Estimate
    standard_error: Optional[float]
    jitter: float
    step_p50_ms: float
    step_p95_ms: float
    speed_up: Estimate
    ideal: float
    efficiency: Estimate
    ceiling: Optional[Estimate]
    without_exchange: Optional[Estimate]
    slow_ranks: Tuple[str, ...]
    num_loaded: int

    @property
    def num_replicas(self) -> int:
        """In all processes."""
        return self.planned.num_ranks * self.planned.replicas_per_process


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        folder: Where it lies.
        record: Of ``study.json``.
        run: Of a run's ``run.json``: configuration and versions.
        rows: The weak and strong points, the smallest first.
        num_rounds: That are complete.
        is_calm: Whether nothing else kept the machine busy in any of them.
    """

    folder: Path
    record: Mapping[str, Any]
    run: Mapping[str, Any]
    rows: Tuple[Row, ...]
    num_rounds: int
    is_calm: bool


def read_study(folder: Path) -> Study:
    """Reads a study as far as it was measured; a round that is not complete is left out.

    Raises:
        BadInput: There is no study, it is of a later hpcdl, or not one round is complete.
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
        planned = [PlannedPoint(**point) for point in record["points"]]
    except (KeyError, TypeError) as problem:
        raise BadInput(f"{folder}/study.json lacks {problem}; measure the study again") from problem
    rounds = _complete_rounds(folder, planned)
    if not rounds:
        raise BadInput(
            f"a study needs one complete round; {folder} has none; `hpcdl bench --study` goes on with it"
        )
    measured = {
        p.name: [read_measurement(_as_point(p), window, at / p.name) for at in rounds] for p in planned
    }
    run = _run_record(rounds[0] / planned[0].name)
    rows = [
        _row(p, planned, measured, window, _run_record(rounds[0] / p.name)["config"])
        for p in planned
        if p.kind in ("weak", "strong")
    ]
    is_calm = all(m.load.is_calm for of_point in measured.values() for m in of_point)
    return Study(folder, record, run, tuple(rows), len(rounds), is_calm)


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
        lines += [f"    {sentence}" for sentence in explain(row)]
    return "\n".join(lines)


def explain(row: Row) -> List[str]:
    """Says where the time goes."""
    sentences = []
    if row.ceiling is not None:
        sentences.append(
            f"{100 * row.ceiling.median:.0f} % of what {row.planned.num_ranks} independent processes do here"
        )
    if row.without_exchange is not None:
        lost = 100 * (1 - row.without_exchange.median)
        sentences.append(f"the exchange of gradients takes {max(lost, 0):.1f} % of the time")
    if row.slow_ranks:
        sentences.append(f"slower than the others: {', '.join(row.slow_ranks)}")
    if row.num_loaded:
        sentences.append(f"something else ran meanwhile in {row.num_loaded} round(s)")
    return sentences


def _complete_rounds(folder: Path, planned: Sequence[PlannedPoint]) -> List[Path]:
    return [
        at
        for at in sorted(folder.glob("round-*"))
        if all((at / p.name / "measurement.json").exists() for p in planned)
    ]


def _as_point(planned: PlannedPoint) -> Point:
    """Gives a point that can only be read."""
    return Point(planned.name, lambda _: (), planned.num_ranks if planned.kind == "ceiling" else 1)


def _run_record(folder: Path) -> Dict[str, Any]:
    try:
        return read_json(folder / "process-0" / "run.json")
    except (OSError, ValueError) as problem:
        raise HpcdlError(f"{folder}/process-0/run.json cannot be read: {problem}") from problem


def _row(
    planned: PlannedPoint,
    all_planned: Sequence[PlannedPoint],
    measured: Mapping[str, Sequence[Measurement]],
    window: Window,
    config: Mapping[str, Any],
) -> Row:
    rates = [m.samples_per_second for m in measured[planned.name]]
    smallest = min((p for p in all_planned if p.kind == planned.kind), key=lambda p: p.num_ranks)
    base = [m.samples_per_second for m in measured[smallest.name]]
    ideal = planned.num_ranks / smallest.num_ranks

    def against(kind: str) -> Optional[Estimate]:
        other = measured.get(f"{kind}-{planned.num_ranks}") if planned.kind == "weak" else None
        return None if other is None else ratio(rates, [m.samples_per_second for m in other])

    steps: List[float] = []
    for measurement in measured[planned.name]:
        slowest = max(measurement.ranks[0], key=window.seconds)
        steps += slowest.step_seconds[window.untimed_steps : window.steps]
    return Row(
        planned,
        int(config["per_replica_batch_size"]),
        int(config["global_batch_size"]),
        tuple(rates),
        estimate(rates),
        _standard_error(rates),
        median([abs(rate - median(rates)) for rate in rates]),
        1e3 * median(steps),
        1e3 * sorted(steps)[min(len(steps) - 1, int(0.95 * len(steps)))],
        ratio(rates, base),
        ideal,
        ratio(rates, [ideal * b for b in base]),
        against("ceiling"),
        against("control"),
        _slow_ranks(measured[planned.name], window),
        sum(not m.load.is_calm for m in measured[planned.name]),
    )


def _standard_error(values: Sequence[float]) -> Optional[float]:
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    return float((sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5)


def _slow_ranks(measurements: Sequence[Measurement], window: Window) -> Tuple[str, ...]:
    """Names ranks that took longer than the median rank, in the median of the rounds."""
    excess: Dict[str, List[float]] = {}
    for measurement in measurements:
        seconds = {f"rank {s.rank} on {s.hostname}": window.seconds(s) for s in measurement.ranks[0]}
        middle = median(seconds.values())
        for who, of_rank in seconds.items():
            excess.setdefault(who, []).append(of_rank / middle)
    return tuple(who for who, of_rounds in sorted(excess.items()) if median(of_rounds) > 1.05)
