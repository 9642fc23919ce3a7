"""The command ``hpcdl bench predict``: throughput at counts that were not measured, and how sure that is.

Synopsis::

    sys.exit(main(["bench/first", "--num-replicas", "64,512"]))
    sys.exit(main(["--table", "measured.csv", "--num-replicas", "512"]))      # columns replicas,samples_per_second
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from hpcdl.common.checks import parse_whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.launch.bench.scaling import Model, fit
from hpcdl.launch.bench.study import read_study

_EXAMPLES = """\
examples:
  hpcdl bench predict bench/first --num-replicas 64,512
  hpcdl bench predict --table measured.csv --num-replicas 27360"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench predict ARGV``.

    Raises:
        BadInput: There are not two different counts to fit.
    """
    parser = OneLineParser(
        prog="hpcdl bench predict",
        description="Predict the throughput of weak scaling at counts of replicas that were not measured.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "studies", metavar="STUDY", nargs="*", type=Path, help="folders that hpcdl bench made"
    )
    parser.add_argument(
        "--table", metavar="FILE", type=Path, help="take FILE instead: CSV, replicas,samples_per_second"
    )
    parser.add_argument(
        "--num-replicas", metavar="LIST", required=True, help="predict these counts, e.g. 64,512"
    )
    options = parser.parse_args(argv)
    if bool(options.studies) == (options.table is not None):
        raise BadInput("hpcdl bench predict takes studies or a --table; received both or neither; pass one")
    measured = read_table(options.table) if options.table is not None else _of_studies(options.studies)
    wanted = [parse_whole_number("--num-replicas", part) for part in options.num_replicas.split(",")]
    print(render(measured, wanted))
    return EXIT_DONE


def read_table(path: Path) -> List[Tuple[int, float]]:
    """Reads counts and their throughput.

    Raises:
        BadInput: The file is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(int(row["replicas"]), float(row["samples_per_second"])) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadInput(
            f"--table must be CSV with the columns replicas,samples_per_second; received {path}: {problem}"
        ) from problem
    return rows


def _of_studies(folders: Sequence[Path]) -> List[Tuple[int, float]]:
    rows = [row for folder in folders for row in read_study(folder).rows if row.planned.kind == "weak"]
    return [(row.num_replicas, row.rate.median) for row in rows if not row.planned.is_functional_only]


def render(measured: Sequence[Tuple[int, float]], wanted: Sequence[int]) -> str:
    """Fits a model and writes it, its test on what it was not given, and its predictions."""
    model = fit([count for count, _ in measured], [rate for _, rate in measured])
    terms = " + ".join(f"{1e3 * c:.4g} ms {name}" for name, c in model.curve.coefficients.items())
    lines = [
        f"fitted to {', '.join(map(str, model.fitted_replicas))} replicas: {terms}, for one sample of each replica",
        _tested(measured),
        "",
        f"{'replicas':>10}{'samples/s':>14}{'range':>28}{'efficiency %':>14}{'power law':>14}",
    ]
    for count in wanted:
        at = model.predict(count)
        interval = f"{at.low:.0f} to {at.high:.0f}"
        baseline = float(model.baseline.throughput([count])[0])
        lines.append(
            f"{count:10d}{at.samples_per_second:14.0f}{interval:>28}{100 * at.efficiency:14.1f}{baseline:14.0f}"
        )
    far = [count for count in wanted if count > 8 * model.fitted_replicas[-1]]
    if far:
        lines.append(f"extrapolated, more than 8 times what was measured: {', '.join(map(str, far))}")
    return "\n".join(lines)


def held_out_errors(measured: Sequence[Tuple[int, float]]) -> Optional[Tuple[Model, Dict[int, float]]]:
    """Fits the smaller half of the counts; gives the relative errors at the others, None for fewer than 3 counts."""
    counts = sorted({count for count, _ in measured})
    if len(counts) < 3:
        return None
    given = set(counts[: (len(counts) + 1) // 2])
    pairs = [(count, rate) for count, rate in measured if count in given]
    model = fit([count for count, _ in pairs], [rate for _, rate in pairs])
    rest = [(count, rate) for count, rate in measured if count not in given]
    return model, {count: model.predict(count).samples_per_second / rate - 1 for count, rate in rest}


def _tested(measured: Sequence[Tuple[int, float]]) -> str:
    tested = held_out_errors(measured)
    if tested is None:
        return "too few counts to test the model on ones that it was not given"
    model, errors = tested
    of_counts = ", ".join(f"{count}: {100 * error:+.1f} %" for count, error in errors.items())
    return (
        f"fitted to {', '.join(map(str, model.fitted_replicas))} only, its error at the others is {of_counts}"
    )
