"""Tests the model of scaling on published runs, and writes the tables of docs/scaling-model.md.

Each study with four or more counts of replicas at a fixed batch per replica is fitted on the smaller half and predicted
on the rest; none is left out. The others are not fitted: their efficiency is computed from the hardware, as far as that
is stated (docs/benchmarks/hardware.csv).

Synopsis::

    python tools/scaling_model.py                  # prints the tables
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.launch.bench.cost import Link  # noqa: E402
from hpcdl.launch.bench.given import Given  # noqa: E402
from hpcdl.launch.bench.predict import held_out_errors  # noqa: E402
from hpcdl.launch.bench.scaling import Measured  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402

PUBLISHED = ROOT / "docs" / "benchmarks" / "published.csv"
HARDWARE = PUBLISHED.with_name("hardware.csv")
_THROUGHPUTS = ("weak_scaling_throughput", "training_throughput", "throughput")
_EFFICIENCIES = ("scaling_efficiency", "parallel_efficiency")
_FEWEST_COUNTS = 4
_LATENCY_S = 5e-6  # of a message; no source states it


@dataclass(frozen=True)
class Stated:
    """What is stated of the hardware: what an exchange is computed from, and the samples/s of one replica alone."""

    given: Given
    one_replica: float


def read_published(path: Path = PUBLISHED) -> Dict[str, List[Tuple[int, float]]]:
    """Reads the throughput at each count, by study."""
    studies: Dict[str, List[Tuple[int, float]]] = {}
    for row in _rows(path):
        if row["metric"] in _THROUGHPUTS:
            studies.setdefault(_name(row), []).append((int(row["replicas"]), float(row["value"])))
    return studies


def read_efficiencies(path: Path = PUBLISHED) -> Dict[str, Dict[int, float]]:
    """Reads the efficiency at each count where a study says only that, by study."""
    studies: Dict[str, Dict[int, float]] = {}
    for row in _rows(path):
        if row["metric"] in _EFFICIENCIES:
            studies.setdefault(_name(row), {})[int(row["replicas"])] = float(row["value"])
    return studies


def read_hardware(path: Path = HARDWARE) -> Dict[Tuple[str, int], Stated]:
    """Reads what is stated of the hardware, by study and count."""
    stated = {}
    for row in _rows(path):
        rate = float(row["one_replica_samples_per_second"])
        link = Link(_LATENCY_S, 1e-9 / float(row["gb_per_s"]))
        step_s, num_bytes = int(row["batch_per_replica"]) / rate, 4.0 * int(row["parameters"])
        given = Given(step_s, num_bytes, link, int(row["replicas_per_node"]))
        stated[_name(row), int(row["replicas"])] = Stated(given, rate)
    return stated


def _rows(path: Path) -> List[Dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _name(row: Mapping[str, str]) -> str:
    return f"{row['study']}: {row['model']}, {row['hardware']}"


def make_table(studies: Mapping[str, List[Tuple[int, float]]]) -> Table:
    """Makes the table of the fitted studies, and its last row of means over them."""
    head = (
        "study",
        "fitted",
        "predicted",
        "error %, mean",
        "largest",
        "power law, mean",
        "largest",
        "in range",
    )
    rows: List[Tuple[str, ...]] = []
    means: List[Tuple[float, float]] = []
    for name, measured in studies.items():
        points = [Measured(count, rate) for count, rate in measured]
        tested = held_out_errors(points) if len(points) >= _FEWEST_COUNTS else None
        if tested is None:
            continue
        model, errors = tested
        rates = {count: rate for count, rate in measured if count in errors}
        baseline = {n: float(model.baseline.throughput([n])[0]) / rate - 1 for n, rate in rates.items()}
        ranges = {n: model.predict(n) for n in rates}
        inside = sum(at.low <= rates[n] <= at.high for n, at in ranges.items())
        of_both = [[100 * abs(e) for e in by_count.values()] for by_count in (errors, baseline)]
        means.append((mean(of_both[0]), mean(of_both[1])))
        figures = [f"{value:.1f}" for values in of_both for value in (mean(values), max(values))]
        rows.append(
            (name, _list(model.fitted_replicas), _list(errors), *figures, f"{inside} of {len(rates)}")
        )
    ours, power = (f"{mean(column):.1f}" for column in zip(*means))
    rows.append(("mean of the fitted studies", "", "", ours, "", power, "", ""))
    return Table(head, tuple(rows))


def make_computed_table(
    studies: Mapping[str, List[Tuple[int, float]]],
    efficiencies: Mapping[str, Mapping[int, float]],
    hardware: Mapping[Tuple[str, int], Stated],
) -> Table:
    """Makes the table of the studies with too few counts: published, and computed where the hardware is stated."""
    head = (
        "study, not fitted",
        "replicas",
        "published efficiency %",
        "step of one, ms",
        "ring, ms",
        "ring: efficiency %",
        "halving-doubling: efficiency %",
        "in range",
    )
    points = [(name, n, e) for name, by_count in efficiencies.items() for n, e in by_count.items()]
    for name, measured in studies.items():
        if len(measured) < _FEWEST_COUNTS:
            count = measured[-1][0]
            points.append((name, count, _relative(measured, hardware.get((name, count)))))
    return Table(head, tuple(_computed_row(*point, hardware.get(point[:2])) for point in points))


def _relative(measured: List[Tuple[int, float]], stated: Optional[Stated]) -> float:
    """Gives the efficiency at the largest count: over the smallest, or over the stated rate of one replica."""
    smallest = measured[0] if len(measured) > 1 or stated is None else (1, stated.one_replica)
    (first, slow), (last, fast) = smallest, measured[-1]
    return fast / slow / (last / first)


def _computed_row(name: str, count: int, published: float, stated: Optional[Stated]) -> Tuple[str, ...]:
    start = (name, str(count), f"{100 * published:.1f}")
    if stated is None:
        return (*start, "not stated", "-", "-", "-", "-")
    ring, tree = (stated.given.at(count)[algorithm] for algorithm in ("ring", "halving-doubling"))
    is_inside = ring.nothing_hidden <= published <= ring.all_hidden
    ends = (f"{100 * at.nothing_hidden:.1f} to {100 * at.all_hidden:.1f}" for at in (ring, tree))
    times = (f"{1e3 * stated.given.step_s:.0f}", f"{1e3 * ring.exchange_s:.0f}")
    return (*start, *times, *ends, "yes" if is_inside else "no")


def _list(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


if __name__ == "__main__":
    print(to_markdown(make_table(read_published())))
    print(to_markdown(make_computed_table(read_published(), read_efficiencies(), read_hardware())))
