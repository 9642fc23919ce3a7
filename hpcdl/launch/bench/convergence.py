"""How long runs took to reach a target metric: more samples/s are worth nothing if more epochs are needed.

Synopsis::

    target = parse_target("val_accuracy=0.9")                      # or val_loss<=0.3
    for row in convergence(runs, target):
        row.num_replicas, row.epochs, row.seconds, row.throughput_efficiency, row.time_efficiency
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.metrics import is_greatest_best
from hpcdl.launch.show import RunFiles

_FORM = re.compile(r"(.+?)(<=|>=|=)([-+.\deE]+)")


@dataclass(frozen=True)
class Target:
    """A metric and the value that it has to reach, from above or from below."""

    metric: str
    value: float
    is_smaller_better: bool

    def is_reached(self, value: float) -> bool:
        """Whether a value is at least as good."""
        return value <= self.value if self.is_smaller_better else value >= self.value

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.is_smaller_better else '>='} {self.value:g}"


@dataclass(frozen=True)
class Reached:
    """The runs on one number of replicas; None where no run reached the target, or the baseline's did not.

    Attributes:
        num_replicas: In all processes.
        global_batch_size: Of the first run.
        num_runs: How many there are.
        num_reached: How many reached the target.
        epochs: Until then; the median, like all that follow.
        seconds: Of training until then, without validation.
        samples_per_second: Of all replicas.
        throughput_efficiency: By samples/s for each replica, over the smallest number of replicas.
        time_efficiency: By seconds to the target times replicas, likewise.
    """

    num_replicas: int
    global_batch_size: int
    num_runs: int
    num_reached: int
    epochs: Optional[float]
    seconds: Optional[float]
    samples_per_second: Optional[float]
    throughput_efficiency: Optional[float]
    time_efficiency: Optional[float]


def parse_target(text: str) -> Target:
    """Reads ``val_accuracy=0.9``, ``val_loss<=0.3``; what ``=`` asks for is told by the metric's name.

    Raises:
        BadInput: It has another form, or no word of the name tells.
    """
    match = _FORM.fullmatch(text)
    try:
        name, sign, value = match.groups() if match else ("", "", "")
        number = float(value)
    except ValueError as problem:
        raise BadInput(
            f"--target must be a metric and its value; received {text!r}; pass e.g. val_accuracy=0.9"
        ) from problem
    is_greatest = sign == ">=" if sign != "=" else is_greatest_best(name)
    if is_greatest is None:
        raise BadInput(
            f"--target must say whether more or less of a metric is better, where its name does not; received {text!r};"
            f" pass '{name}>={value}' or '{name}<={value}', in quotes"
        )
    return Target(name, number, not is_greatest)


def convergence(runs: Sequence[RunFiles], target: Target) -> List[Reached]:
    """Compares runs by the time to a target, the smallest number of replicas first.

    Raises:
        BadInput: No run has the metric.
    """
    known = sorted({name for run in runs for name in _values(run)})
    if target.metric not in known:
        raise BadInput(
            f"a target metric must be one that the runs have; received {target.metric}; they have"
            f" {', '.join(known) or 'no history'}"
        )
    ordered = sorted(runs, key=_num_replicas)
    groups = [(count, list(of_count)) for count, of_count in groupby(ordered, key=_num_replicas)]
    first: Optional[Reached] = None
    rows = []
    for count, of_count in groups:
        row = _row(count, of_count, target, first)
        first = first or row
        rows.append(row)
    return rows


def _values(run: RunFiles) -> Mapping[str, Sequence[Optional[float]]]:
    """Gives a value for each epoch by column, and by metric: the mean of its columns ``f1_score[0]``, ...."""
    return {**run.metrics, **run.history}


def _num_replicas(run: RunFiles) -> int:
    return _number_of(run, "topology", "world_size") * _number_of(run, "config", "replicas_per_process")


def _number_of(run: RunFiles, part: str, name: str) -> int:
    try:
        return int(run.record[part][name])
    except (KeyError, TypeError) as problem:
        raise BadInput(
            f"a run's record must name its {name}; received {run.path}/run.json, which does not; name another"
        ) from problem


def _row(count: int, runs: Sequence[RunFiles], target: Target, first: Optional[Reached]) -> Reached:
    reached = [found for found in (_to_target(run, target) for run in runs) if found is not None]
    rates = [float(r.record["samples_per_second"]) for r in runs if r.record.get("samples_per_second")]
    seconds = [s for _, s in reached if s is not None]
    rate, time_s = median(rates) if rates else None, median(seconds) if seconds else None
    base = first.num_replicas if first is not None else count
    base_rate = first.samples_per_second if first is not None else rate
    base_s = first.seconds if first is not None else time_s
    return Reached(
        count,
        _number_of(runs[0], "config", "global_batch_size"),
        len(runs),
        len(reached),
        median([epochs for epochs, _ in reached]) if reached else None,
        time_s,
        rate,
        (rate / count) / (base_rate / base) if rate and base_rate else None,
        (base_s * base) / (time_s * count) if time_s and base_s else None,
    )


def _to_target(run: RunFiles, target: Target) -> Optional[Tuple[int, Optional[float]]]:
    """Gives the epochs to the target and their seconds (None for a run that was resumed); None: not reached."""
    values = _values(run).get(target.metric, [])
    epochs = next(
        (i for i, value in enumerate(values, start=1) if value is not None and target.is_reached(value)), None
    )
    if epochs is None:
        return None
    seconds = run.record.get("epoch_seconds", [])
    return epochs, sum(seconds[:epochs]) if len(seconds) == len(values) else None
