"""The command ``hpcdl bench predict``: throughput at counts that were not measured, and how sure that is.

Synopsis::

    sys.exit(main(["bench/first", "--num-replicas", "64,512"]))
    sys.exit(main(["--table", "measured.csv", "--num-replicas", "512"]))      # columns replicas,samples_per_second
    sys.exit(main(["--step-ms", "476", "--megabytes", "95", "--gb-per-s", "3.1", "--num-replicas", "512"]))
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from hpcdl.common.checks import parse_number, parse_whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OneLineParser, flag
from hpcdl.launch.bench.cost import Link
from hpcdl.launch.bench.figures import three_digits
from hpcdl.launch.bench.given import Given
from hpcdl.launch.bench.given import render as render_given
from hpcdl.launch.bench.likeness import check_alike, facts_of, facts_of_curve, machine_of
from hpcdl.launch.bench.scaling import Measured, Model, fit
from hpcdl.launch.bench.study import Study, read_study

_EXAMPLES = """\
examples:
  hpcdl bench predict bench/first --num-replicas 64,512
  hpcdl bench predict --table measured.csv --num-replicas 27360
  hpcdl bench predict --step-ms 476 --megabytes 95 --gb-per-s 3.1 --num-replicas 64,512"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench predict ARGV``.

    Raises:
        BadInput: There are not two different counts to fit, or what was measured there differs.
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
    parser.add_argument(
        "--force", action="store_true", help="fit one model to studies although what was measured differs"
    )
    _add_given(parser)
    options = parser.parse_args(argv)
    wanted = [parse_whole_number("--num-replicas", part) for part in options.num_replicas.split(",")]
    given = _given(options)
    if sum([bool(options.studies), options.table is not None, given is not None]) != 1:
        raise BadInput(
            "hpcdl bench predict takes studies, a --table, or --step-ms with what belongs to it; received none or"
            " several; pass one"
        )
    if given is not None:
        print(render_given(given, wanted))
        return EXIT_DONE
    if options.table is not None:
        measured = read_table(options.table)
    else:
        measured = of_studies([read_study(folder) for folder in options.studies], options.force)
    print(render(measured, wanted))
    return EXIT_DONE


def _add_given(parser: OneLineParser) -> None:
    group = parser.add_argument_group("from given numbers, instead of measured ones")
    for name, metavar, purpose in (
        ("--step-ms", "MS", "a step of one replica alone takes MS milliseconds"),
        ("--megabytes", "MB", "its gradients have MB megabytes (4 bytes a parameter in float32)"),
        ("--gb-per-s", "GB", "the network of a node carries GB gigabytes a second in each direction"),
        ("--latency-us", "US", "a message of no bytes takes US microseconds (default: 5)"),
        ("--ranks-per-node", "N", "N ranks share that network (with --inside-gb-per-s)"),
        ("--inside-gb-per-s", "GB", "ranks of a node reach each other with GB gigabytes a second"),
    ):
        group.add_argument(name, metavar=metavar, help=purpose)


def _given(options: argparse.Namespace) -> Optional[Given]:
    """Reads the given numbers; None: there are none.

    Raises:
        BadInput: Some are missing.
    """
    needed = {name: getattr(options, name) for name in ("step_ms", "megabytes", "gb_per_s")}
    hierarchy = {name: getattr(options, name) for name in ("ranks_per_node", "inside_gb_per_s")}
    if all(text is None for text in (*needed.values(), *hierarchy.values(), options.latency_us)):
        return None
    for group in (needed, hierarchy if any(hierarchy.values()) else {}):
        missing = [flag(name) for name, text in group.items() if text is None]
        if missing:
            together = ", ".join(map(flag, group))
            raise BadInput(f"{together} go together; {', '.join(missing)} is missing; pass it too")
    latency_s = 1e-6 * parse_number("--latency-us", options.latency_us or "5")
    numbers = {name: parse_number(flag(name), text) for name, text in {**needed, **hierarchy}.items() if text}
    given = Given(
        1e-3 * numbers["step_ms"], 1e6 * numbers["megabytes"], Link(latency_s, 1e-9 / numbers["gb_per_s"])
    )
    if options.inside_gb_per_s is None:
        return given
    ranks = parse_whole_number("--ranks-per-node", options.ranks_per_node)
    return replace(given, ranks_per_node=ranks, inside=Link(latency_s, 1e-9 / numbers["inside_gb_per_s"]))


def read_table(path: Path) -> List[Measured]:
    """Reads counts and their throughput.

    Raises:
        BadInput: The file is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                Measured(int(row["replicas"]), float(row["samples_per_second"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BadInput(
            f"--table must be CSV with the columns replicas,samples_per_second; received {path}: {problem}"
        ) from problem
    return rows


def of_studies(studies: Sequence[Study], is_forced: bool = False) -> List[Measured]:
    """Gives the throughput of the weak points at each count, with the interval or the range of the rounds.

    Raises:
        BadInput: One curve cannot be laid through them: they are of different trainings, machines or software.
    """
    if not is_forced:
        facts = [
            one
            for s in studies
            for one in ({**facts_of(s), **machine_of(s)}, *facts_of_curve(s), *s.software, *s.trainings)
        ]
        check_alike(facts, "what a model is fitted to", [study.folder for study in studies])
    rows = [row for study in studies for row in study.rows if row.planned.kind == "weak"]
    return [
        Measured(row.num_replicas, row.rate.median, *(row.rate.spread or ()))
        for row in rows
        if not row.planned.is_functional_only
    ]


def render(measured: Sequence[Measured], wanted: Sequence[int]) -> str:
    """Fits a model and writes it, its test on what it was not given, and its predictions."""
    model = fit(measured)
    terms = " + ".join(f"{1e3 * c:.4g} ms {name}" for name, c in model.curve.coefficients.items())
    lines = [
        f"fitted to {', '.join(map(str, model.fitted_replicas))} replicas: {terms}, for one sample of each replica",
        _tested(measured),
        "",
        f"{'replicas':>10}{'samples/s':>14}{'range':>28}{'efficiency %':>14}{'power law':>14}",
    ]
    for count in wanted:
        at = model.predict(count)
        interval = f"{three_digits(at.low)} to {three_digits(at.high)}"
        baseline = three_digits(float(model.baseline.throughput([count])[0]))
        rate = three_digits(at.samples_per_second)
        lines.append(f"{count:10d}{rate:>14}{interval:>28}{100 * at.efficiency:14.1f}{baseline:>14}")
    largest = model.fitted_replicas[-1]
    far = [f"{count} ({three_digits(count / largest)} times)" for count in wanted if count > largest]
    if far:
        lines.append(f"extrapolated beyond {largest}, the largest that was measured: {', '.join(far)}")
    return "\n".join(lines)


def held_out_errors(measured: Sequence[Measured]) -> Optional[Tuple[Model, Dict[int, float]]]:
    """Fits the smaller half of the counts; gives the relative errors at the others, None for fewer than 3 counts."""
    counts = sorted({point.num_replicas for point in measured})
    if len(counts) < 3:
        return None
    given = set(counts[: (len(counts) + 1) // 2])
    model = fit([point for point in measured if point.num_replicas in given])
    rest = [point for point in measured if point.num_replicas not in given]
    return model, {
        point.num_replicas: model.predict(point.num_replicas).samples_per_second / point.samples_per_second
        - 1
        for point in rest
    }


def _tested(measured: Sequence[Measured]) -> str:
    tested = held_out_errors(measured)
    if tested is None:
        return "too few counts to test the model on ones that it was not given"
    model, errors = tested
    of_counts = ", ".join(f"{count}: {100 * error:+.1f} %" for count, error in errors.items())
    return (
        f"fitted to {', '.join(map(str, model.fitted_replicas))} only, its error at the others is {of_counts}"
    )
