"""Tests the model of scaling on published runs, and writes the table of docs/scaling-model.md.

Each study with four or more counts of replicas at a fixed batch per replica is fitted on the smaller half and predicted
on the rest; none is left out. Studies with fewer counts are listed and not fitted.

Synopsis::

    python tools/scaling_model.py                  # prints the table
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import mean
from typing import Dict, Iterable, List, Mapping, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.launch.bench.predict import held_out_errors  # noqa: E402
from hpcdl.launch.bench.tables import Table, to_markdown  # noqa: E402

PUBLISHED = ROOT / "docs" / "benchmarks" / "published.csv"
_THROUGHPUTS = ("weak_scaling_throughput", "training_throughput")
_FEWEST_COUNTS = 4


def read_published(path: Path = PUBLISHED) -> Dict[str, List[Tuple[int, float]]]:
    """Reads the throughput at each count, by study."""
    studies: Dict[str, List[Tuple[int, float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["metric"] in _THROUGHPUTS:
                name = f"{row['study']}: {row['model']}, {row['hardware']}"
                studies.setdefault(name, []).append((int(row["replicas"]), float(row["value"])))
    return studies


def make_table(studies: Mapping[str, List[Tuple[int, float]]]) -> Table:
    """Makes the table, and its last row of means over the studies."""
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
        counts = [count for count, _ in measured]
        tested = held_out_errors(measured) if len(counts) >= _FEWEST_COUNTS else None
        if tested is None:
            rows.append((name, "not fitted", _list(counts), "-", "-", "-", "-", "-"))
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


def _list(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


if __name__ == "__main__":
    print(to_markdown(make_table(read_published())))
