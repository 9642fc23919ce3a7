"""The command ``hpcdl bench predict``: throughput at counts that were not measured, and how sure that is.

Synopsis::

    sys.exit(main(["bench/first", "--num-replicas", "64,512"]))
    sys.exit(main(["--table", "measured.csv", "--num-replicas", "512"]))      # columns replicas,samples_per_second
    sys.exit(main(["--step-ms", "476", "--megabytes", "95", "--gb-per-s", "3.1", "--num-replicas", "512"]))
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.checks import parse_number, parse_whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OneLineParser, flag
from hpcdl.launch.bench.cost import Link
from hpcdl.launch.bench.figures import three_digits
from hpcdl.launch.bench.given import Given
from hpcdl.launch.bench.given import as_tree as tree_of_given
from hpcdl.launch.bench.given import render as render_given
from hpcdl.launch.bench.likeness import check_alike, facts_of, facts_of_curve, machine_of
from hpcdl.launch.bench.scaling import Measured, Model, fit
from hpcdl.launch.bench.study import Study, read_study
from hpcdl.launch.bench.words import MOST_REPLICAS

_EXAMPLES = """\
examples:
  hpcdl bench predict bench/first --num-replicas 64,512
  hpcdl bench predict --table measured.csv --num-replicas 27360 --json
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
        "--table",
        metavar="FILE",
        type=Path,
        help=f"take FILE instead: CSV whose first line is {','.join(_COLUMNS)}",
    )
    parser.add_argument(
        "--num-replicas", metavar="LIST", required=True, help="predict these counts, e.g. 64,512"
    )
    parser.add_argument(
        "--force", action="store_true", help="fit one model to studies although what was measured differs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_given(parser)
    options = parser.parse_args(argv)
    wanted = [
        parse_whole_number("--num-replicas", part, most=MOST_REPLICAS)
        for part in options.num_replicas.split(",")
    ]
    given = _given(options)
    said = [
        *([", ".join(map(str, options.studies))] if options.studies else []),
        *([f"--table {options.table}"] if options.table is not None else []),
        *([f"--step-ms {options.step_ms}"] if given is not None else []),
    ]
    if len(said) != 1:
        raise BadInput(
            "hpcdl bench predict takes studies, a --table, or --step-ms with what belongs to it; received"
            f" {' and '.join(said) or 'none of them'}; pass one of the three"
        )
    if given is not None:
        print(_as_json(tree_of_given(given, wanted)) if options.json else render_given(given, wanted))
        return EXIT_DONE
    if options.table is not None:
        measured = read_table(options.table)
    else:
        measured = of_studies([read_study(folder) for folder in options.studies], options.force)
    print(_as_json(as_tree(measured, wanted)) if options.json else render(measured, wanted))
    return EXIT_DONE


def _as_json(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2)


#: Name, word for the value and purpose of what may be given; the first ones are needed.
_GIVEN = (
    ("step_ms", "MS", "a step of one replica alone takes MS milliseconds"),
    ("megabytes", "MB", "its gradients have MB megabytes (4 bytes a parameter in float32)"),
    ("gb_per_s", "GB", "the network of a node carries GB gigabytes a second in each direction"),
    ("latency_us", "US", "a message of no bytes takes US microseconds (default: 5)"),
    ("ranks_per_node", "N", "N ranks share that network where they send at once: not in a ring (default: 1)"),
    ("inside_gb_per_s", "GB", "they reach each other with GB gigabytes a second: adds a hierarchy"),
)
#: Of a table.
_COLUMNS = ("replicas", "samples_per_second")
_NEEDED = tuple(name for name, _, _ in _GIVEN[:3])


def _add_given(parser: OneLineParser) -> None:
    group = parser.add_argument_group("from given numbers, instead of measured ones")
    for name, metavar, purpose in _GIVEN:
        group.add_argument(flag(name), metavar=metavar, help=purpose)


def _given(options: argparse.Namespace) -> Optional[Given]:
    """Reads the given numbers; None: there are none.

    Raises:
        BadInput: Some are missing.
    """
    texts = {name: getattr(options, name) for name, _, _ in _GIVEN}
    said = {name: text for name, text in texts.items() if text is not None}
    if not said:
        return None
    for group in (_NEEDED, ("ranks_per_node", "inside_gb_per_s") if "inside_gb_per_s" in said else ()):
        missing = [flag(name) for name in group if name not in said]
        if missing:
            together = ", ".join(map(flag, group))
            raise BadInput(f"{together} go together; {', '.join(missing)} is missing; pass it too")
    ranks_per_node = parse_whole_number(
        "--ranks-per-node", said.pop("ranks_per_node", "1"), most=MOST_REPLICAS
    )
    numbers = {name: parse_number(flag(name), text) for name, text in {"latency_us": "5", **said}.items()}
    latency_s = 1e-6 * numbers["latency_us"]
    inside_gb_per_s = numbers.get("inside_gb_per_s")
    return Given(
        1e-3 * numbers["step_ms"],
        1e6 * numbers["megabytes"],
        Link(latency_s, 1e-9 / numbers["gb_per_s"]),
        ranks_per_node,
        None if inside_gb_per_s is None else Link(latency_s, 1e-9 / inside_gb_per_s),
    )


def read_table(path: Path) -> List[Measured]:
    """Reads counts and their throughput.

    Raises:
        BadInput: The file is no such table.
    """
    rule = f"--table must be CSV with the columns {','.join(_COLUMNS)}"
    rows: List[Measured] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            if not set(_COLUMNS) <= set(columns):
                found = f"the columns {','.join(columns)}" if columns else "no columns"
                raise BadInput(f"{rule}; received {path}, which has {found}; name them in its first line")
            for row in table:
                of_count, of_rate = ((row[name] or "").strip() for name in _COLUMNS)
                where = f"in line {table.line_num} of {path}"
                rows.append(
                    Measured(
                        parse_whole_number(f"{_COLUMNS[0]} {where}", of_count, most=MOST_REPLICAS),
                        parse_number(f"{_COLUMNS[1]} {where}", of_rate),
                    )
                )
    except OSError as problem:
        raise BadInput(f"{rule}; received {path} ({problem.strerror or problem}); name another") from problem
    except (UnicodeDecodeError, csv.Error) as problem:
        raise BadInput(f"{rule}; received {path} ({problem}); write it as UTF-8 text") from problem
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


def as_tree(measured: Sequence[Measured], wanted: Sequence[int]) -> Dict[str, Any]:
    """Gives the same for JSON."""
    model, tested = fit(measured), held_out_errors(measured)
    largest = model.fitted_replicas[-1]
    return {
        "kind": "prediction",
        "fitted_replicas": model.fitted_replicas,
        "coefficients_s": model.curve.coefficients,
        "held_out_errors": None if tested is None else tested[1],
        "at": [
            {
                **asdict(model.predict(count)),
                "power_law": float(model.baseline.throughput([count])[0]),
                "times_largest_measured": count / largest,
            }
            for count in wanted
        ],
    }


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
