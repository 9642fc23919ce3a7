"""The command ``hpcdl bench compare``: did it get slower?

Two studies are measured at different times: their rounds are no pairs, and a machine that changed in between counts as
well. Where that matters, measure both in one study.

Synopsis::

    sys.exit(main(["bench/before", "bench/after", "--margin", "3"]))       # 1: a point got slower, 3: nobody can tell
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import List, Sequence

from hpcdl.common.checks import parse_number
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.common.saying import count
from hpcdl.launch.bench.likeness import check_alike, check_one_training, facts_of, machine_of
from hpcdl.launch.bench.ratios import Estimate, unpaired_ratio
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.software import differing
from hpcdl.launch.bench.study import Study, read_study

_EXAMPLES = """\
examples:
  hpcdl bench compare bench/before bench/after
  hpcdl bench compare bench/before bench/after --json
  hpcdl bench compare bench/before bench/after --margin 5 || echo 'slower, or too few rounds'"""


#: The exit status where there are too few rounds for a verdict: what passes for ever is no test.
EXIT_UNDECIDED = 3
_SLOWER = "slower"
_TOO_FEW = "too few rounds to tell"


@dataclass(frozen=True)
class Comparison:
    """A point in both studies."""

    name: str
    ratio: Estimate
    verdict: str


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench compare ARGV``.

    Returns:
        1 if a point got slower, beyond doubt and by more than the margin; else 3 if a point has too few rounds.

    Raises:
        BadInput: A folder holds no study, or they have no point in common.
    """
    parser = OneLineParser(
        prog="hpcdl bench compare",
        description="Say whether B is slower than A: the ratio of their samples/s at each common point. Exit status 1:"
        " a point is slower; 3: a point has too few rounds to tell; 0: none is.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("before", metavar="A", type=Path, help="a study")
    parser.add_argument("after", metavar="B", type=Path, help="a later study of the same points")
    parser.add_argument(
        "--margin",
        metavar="PERCENT",
        type=partial(parse_number, "--margin", positive=False),
        default=2.0,
        help="let this much slower pass (default: 2)",
    )
    parser.add_argument(
        "--force", action="store_true", help="compare them although what was measured differs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    before, after = read_study(options.before), read_study(options.after)
    if not options.force:
        check_one_training([before, after])
        facts = [facts_of(before), facts_of(after)]
        check_alike(facts, "studies that are compared", [before.folder, after.folder])
    found = compare(before, after, options.margin / 100)
    differ = differing([*before.software, *after.software, machine_of(before), machine_of(after)])
    is_calm = before.is_calm and after.is_calm
    if options.json:
        points = [asdict(one) for one in found]
        print(
            json.dumps(
                {"kind": "comparison", "points": points, "differ": differ, "is_calm": is_calm}, indent=2
            )
        )
    else:
        print("\n".join(render(found, differ, is_calm)))
    verdicts = {one.verdict for one in found}
    if _SLOWER in verdicts:
        return EXIT_FAILED
    return EXIT_UNDECIDED if _TOO_FEW in verdicts else EXIT_DONE


def render(found: Sequence[Comparison], differ: Sequence[str], is_calm: bool) -> List[str]:
    """Writes the points in lines, and what a reader must know besides."""
    lines = [f"{one.name:<12} B / A {one.ratio!s:<26} {one.verdict}" for one in found]
    lines += [f"what differs: {', '.join(differ)}"] if differ else []
    if not is_calm:
        lines.append("something else kept the machine busy in some of the rounds: take this with care")
    return lines


def compare(before: Study, after: Study, margin: float) -> List[Comparison]:
    """Compares the points that two studies have in common; the intervals hold for all points together.

    Raises:
        BadInput: There are none.
    """
    rows = {row.planned: row for row in before.rows}
    common = [(rows[row.planned], row) for row in after.rows if row.planned in rows]
    if not common:
        received = [f"{s.folder} ({', '.join(map(_where, s.rows))})" for s in (before, after)]
        raise BadInput(
            f"two studies are compared at the points that both have; received {' and '.join(received)}, which have"
            " none in common; measure the same points"
        )
    found = []
    for old, new in common:
        ratio = unpaired_ratio(new.rates, old.rates, num_ratios=len(common))
        found.append(Comparison(old.planned.name, ratio, _verdict(ratio, margin)))
    return found


def _where(row: Row) -> str:
    """Names a point with what makes it the same point."""
    planned = row.planned
    cores = f", {planned.cores_per_rank} cores per rank" if planned.cores_per_rank else ""
    return f"{planned.name} on {count(planned.num_nodes, 'node')}{cores}"


def _verdict(ratio: Estimate, margin: float) -> str:
    if ratio.low is None or ratio.high is None:
        return _TOO_FEW
    if ratio.high < 1 - margin:
        return _SLOWER
    if ratio.low > 1 + margin:
        return "faster"
    if ratio.low >= 1 - margin and ratio.high <= 1 + margin:
        return "the same"
    return "no difference that can be told"
