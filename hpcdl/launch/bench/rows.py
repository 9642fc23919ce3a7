"""A point of a study over its rounds: throughput, efficiency, where the time of a step goes. Pure functions.

Synopsis::

    points = Points(planned, measured, window)             # measured["weak-2"][3] is the measurement of round 3
    row = make_row(points, planned_point)
    row.rate.median, row.efficiency, row.parts_ms["exchange"]
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.step_times import RankSteps
from hpcdl.launch.bench.causes import NAMES, Parts, losses, split
from hpcdl.launch.bench.measuring import Measurement, Window
from hpcdl.launch.bench.planning import PlannedPoint, control_name
from hpcdl.launch.bench.ratios import Estimate, estimate, ratio, unpaired_ratio

#: A rank this much slower than the median rank is named.
_SLOW = 1.05


@dataclass(frozen=True)
class RankTimes:
    """Where the time of one rank goes, in the median of the rounds.

    Attributes:
        rank: Who.
        hostname: Where it ran by itself: of a site's jobs on other nodes each time, all of them.
        compute_ms: Without the others; with the input where that was not measured by itself.
        input_ms: Until its data are there, likewise; None: not measured.
        wait_ms: What its step takes longer with the others: for the slowest of them, and for the exchange; None: it is
            alone, or was never measured by itself.
    """

    rank: int
    hostname: str
    compute_ms: float
    input_ms: Optional[float]
    wait_ms: Optional[float]


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
        first_step_s: The first step, which holds the compilation, of the slowest rank, in the median of the rounds.
        step_p50_ms: Median of the timed steps of the slowest rank, over all rounds.
        step_p95_ms: 95th percentile likewise.
        speed_up: Over the smallest point of the same kind.
        is_paired: Whether that was taken round by round; else between all measurements of both.
        ideal: What the speed-up could be at most.
        efficiency: Speed-up / ideal.
        machine: Speed-up of as many independent processes, which exchange nothing: what the machine gives; None where
            that was not measured.
        ceiling: Rate / that of those processes; None likewise.
        parts_ms: Of a step by cause, in ms (`hpcdl.launch.bench.causes`); {} where there was no control.
        lost: By cause, the parts of a step that are lost against the smallest point; {} likewise.
        ranks: Where the time of each rank goes.
        slow_ranks: Ranks slower than the median rank by more than 5 %, with their host.
        num_loaded: Rounds in which something else kept the machine busy.
        samples_in_data: Samples of a whole epoch; None: not known.
        gpu_use_percent: How busy the GPUs were, in the median of the rounds; None: no GPU, or not known.
        gpu_peak_bytes: The most that a rank held on its GPU; None: no GPU, or not known.
        host_peak_bytes: The most that a rank held on its host.
    """

    planned: PlannedPoint
    per_replica_batch_size: int
    global_batch_size: int
    rates: Tuple[float, ...]
    rate: Estimate
    standard_error: Optional[float]
    jitter: float
    first_step_s: float
    step_p50_ms: float
    step_p95_ms: float
    speed_up: Estimate
    is_paired: bool
    ideal: float
    efficiency: Estimate
    machine: Optional[Estimate]
    ceiling: Optional[Estimate]
    parts_ms: Mapping[str, Estimate]
    lost: Mapping[str, Estimate]
    ranks: Tuple[RankTimes, ...]
    slow_ranks: Tuple[str, ...]
    num_loaded: int
    samples_in_data: Optional[int]
    gpu_use_percent: Optional[float]
    gpu_peak_bytes: Optional[int]
    host_peak_bytes: Optional[int]

    @property
    def num_replicas(self) -> int:
        """In all processes."""
        return self.planned.num_replicas

    @property
    def mean(self) -> float:
        """Of the rates."""
        return fmean(self.rates)

    def node_hours(self, epochs: float = 1.0) -> Optional[float]:
        """Gives the node-hours of training for some epochs, without validation; None: the data are not known."""
        if self.samples_in_data is None:
            return None
        return self.planned.num_nodes * epochs * self.samples_in_data / self.rate.median / 3600


@dataclass(frozen=True)
class Points:
    """What was measured.

    Attributes:
        planned: All points.
        measured: By name and round.
        window: The steps that count.
        has_rounds: Whether what is of one round was measured together; jobs of a site share no time.
    """

    planned: Sequence[PlannedPoint]
    measured: Mapping[str, Mapping[int, Measurement]]
    window: Window
    has_rounds: bool = True

    def baseline(self, point: PlannedPoint) -> PlannedPoint:
        """Gives the smallest point of the same kind."""
        return min((p for p in self.planned if p.kind == point.kind), key=lambda p: p.num_ranks)

    def pairs(self, name: str, other: str) -> List[int]:
        """Lists the rounds within which two points are compared; []: what was measured of both makes no pairs."""
        common = sorted(set(self.measured.get(name, {})) & set(self.measured.get(other, {})))
        return common if self.has_rounds or name == other else []

    def ratio(self, name: str, other: str, ideal: float = 1.0) -> Estimate:
        """Estimates the samples/s of a point over ``ideal`` times those of another."""
        rates, others = self.rates(name), self.rates(other)
        numbers = self.pairs(name, other)
        if numbers:
            return ratio([rates[n] for n in numbers], [ideal * others[n] for n in numbers])
        return unpaired_ratio(list(rates.values()), [ideal * rate for rate in others.values()])

    def rates(self, name: str) -> Dict[int, float]:
        """Gives the samples/s by round; {} where nothing was measured."""
        return {number: m.samples_per_second for number, m in self.measured.get(name, {}).items()}

    def control(self, kind: str, point: PlannedPoint) -> Mapping[int, Measurement]:
        """Gives a point's control by round; {} where there is none."""
        for scaling in (point.scaling, "weak"):  # which may have the same batches, and is not measured twice
            found = self.measured.get(control_name(kind, scaling, point.num_ranks), {})
            if found and _batch(found) == _batch(self.measured[point.name]):
                return found
        return {}

    def parts(self, point: PlannedPoint) -> Dict[int, Parts]:
        """Splits a step, in each round in which the point and its controls were measured."""
        mine = self.measured.get(point.name, {})
        if not mine:
            return {}
        cached = self.control("cached", point)
        control = self.control("control", point) if point.num_ranks > 1 else mine
        found = {}
        for number in sorted(set(mine) & set(control) & (set(cached) or set(mine))):
            of_cached = self.window.timed(cached[number]) if cached else None
            step_s = mine[number].step_seconds
            found[number] = split(step_s, self.window.timed(control[number]), of_cached)
        return found


def make_row(points: Points, point: PlannedPoint) -> Row:
    """Works a point out."""
    measured = points.measured[point.name]
    base = points.baseline(point)
    ideal = point.num_replicas / base.num_replicas
    values = list(points.rates(point.name).values())
    rate_of_all = estimate(values)
    first = next(iter(measured.values())).runs[0]
    steps: List[float] = []
    for measurement in measured.values():
        steps += max(points.window.timed(measurement), key=sum)
    parts = points.parts(point)
    ceiling = f"ceiling-{point.num_ranks}"
    has_ceiling = point.scaling == "weak" and points.rates(ceiling)
    return Row(
        point,
        int(first["config"]["per_replica_batch_size"]),
        int(first["config"]["global_batch_size"]),
        tuple(values),
        rate_of_all,
        _standard_error(values),
        median([abs(rate - rate_of_all.median) for rate in values]),
        median([max(steps.step_seconds[0] for steps in m.ranks[0]) for m in measured.values()]),
        1e3 * median(steps),
        1e3 * sorted(steps)[min(len(steps) - 1, int(0.95 * len(steps)))],
        points.ratio(point.name, base.name),
        bool(points.pairs(point.name, base.name)),
        ideal,
        points.ratio(point.name, base.name, ideal),
        points.ratio(ceiling, base.name) if has_ceiling else None,
        points.ratio(point.name, ceiling) if has_ceiling else None,
        _parts_ms(points, point, list(parts.values())),
        _lost(points, point, base, parts),
        _ranks(points, point),
        _slow_ranks(points, point),
        sum(not m.is_calm for m in measured.values()),
        first["config"].get("samples_in_data"),
        _gpu_use(measured.values()),
        _most(measured.values(), "gpu_peak_bytes"),
        _most(measured.values(), "host_peak_bytes"),
    )


def _batch(measured: Mapping[int, Measurement]) -> Any:
    """Gives the batch of a replica."""
    return next(iter(measured.values())).runs[0].get("config", {}).get("per_replica_batch_size")


def _parts_ms(points: Points, point: PlannedPoint, parts: Sequence[Parts]) -> Dict[str, Estimate]:
    """Gives the parts that a point has: a rank alone waits for nobody, and is all compute without its input's part."""
    if point.num_ranks == 1 and not points.control("cached", point):
        return {}
    names = ("compute", "input") if point.num_ranks == 1 else NAMES
    return _estimates([{k: 1e3 * s for k, s in p.by_name().items() if k in names} for p in parts])


def _estimates(of_rounds: Sequence[Mapping[str, float]]) -> Dict[str, Estimate]:
    names = [name for name in NAMES if of_rounds and all(name in values for values in of_rounds)]
    return {name: estimate([values[name] for values in of_rounds]) for name in names}


def _lost(
    points: Points, point: PlannedPoint, base: PlannedPoint, parts: Mapping[int, Parts]
) -> Dict[str, Estimate]:
    if point.name == base.name:
        return {}
    of_base = points.parts(base)
    scale = 1.0 if point.scaling == "weak" else base.num_replicas / point.num_replicas
    return _estimates([losses(parts[n], of_base[n], scale) for n in sorted(set(parts) & set(of_base))])


def _ranks(points: Points, point: PlannedPoint) -> Tuple[RankTimes, ...]:
    mine, has_others = points.measured[point.name], point.num_ranks > 1
    real = _means(points, mine)
    by_itself = points.control("control", point) if has_others else mine
    alone, hosts = _means(points, by_itself), _hosts(by_itself)
    without_input = _means(points, points.control("cached", point))
    found = []
    for rank, seconds in alone.items():
        compute = without_input.get(rank)
        together = real.get(rank) if has_others else None
        found.append(
            RankTimes(
                rank,
                ", ".join(hosts[rank]),
                1e3 * (seconds if compute is None else compute),
                None if compute is None else 1e3 * (seconds - compute),
                None if together is None else 1e3 * (together - seconds),
            )
        )
    return tuple(found)


def _means(points: Points, measured: Mapping[int, Measurement]) -> Dict[int, float]:
    """Gives the mean step of each rank, in the median of the rounds, on whatever nodes they were."""
    found: Dict[int, List[float]] = {}
    for measurement in measured.values():
        for steps, timed in zip(measurement.ranks[0], points.window.timed(measurement)):
            found.setdefault(steps.rank, []).append(sum(timed) / len(timed))
    return {rank: median(values) for rank, values in sorted(found.items())}


def _hosts(measured: Mapping[int, Measurement]) -> Dict[int, Dict[str, None]]:
    """Lists where each rank was, each host once."""
    found: Dict[int, Dict[str, None]] = {}
    for measurement in measured.values():
        for steps in measurement.ranks[0]:
            found.setdefault(steps.rank, {})[steps.hostname] = None
    return found


def _slow_ranks(points: Points, point: PlannedPoint) -> Tuple[str, ...]:
    """Names ranks that are slower than the median rank by themselves: with the exchange all are as slow as the last."""
    measured = points.control("control", point) or points.measured[point.name]
    excess: Dict[str, List[float]] = {}
    for measurement in measured.values():
        seconds = {_name(steps): points.window.seconds(steps) for steps in measurement.ranks[0]}
        middle = median(seconds.values())
        for who, of_rank in seconds.items():
            excess.setdefault(who, []).append(of_rank / middle)
    return tuple(who for who, of_rounds in sorted(excess.items()) if median(of_rounds) > _SLOW)


def _name(steps: RankSteps) -> str:
    return f"rank {steps.rank} on {steps.hostname}"


def _most(measured: Any, name: str) -> Optional[int]:
    known = [run.get("memory", {}).get(name) for m in measured for run in m.runs]
    return max((int(value) for value in known if value is not None), default=None)


def _gpu_use(measured: Any) -> Optional[float]:
    known = [run.get("gpu_use_percent") for m in measured for run in m.runs]
    seen = [float(percent) for percent in known if percent is not None]
    return median(seen) if seen else None


def _standard_error(values: Sequence[float]) -> Optional[float]:
    return float(stdev(values) / len(values) ** 0.5) if len(values) > 1 else None
