"""The command ``hpcdl bench compare``: did it get slower?

Two studies are measured at different times: their rounds are no pairs, and a machine that changed in between counts as
well. Where that matters, measure both in one study.

Synopsis::

    sys.exit(main(["bench/before", "bench/after", "--margin", "3"]))       # status 1: a point got slower
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.launch.bench.ratios import Estimate, unpaired_ratio
from hpcdl.launch.bench.study import Study, read_study

_EXAMPLES = """\
examples:
  hpcdl bench compare bench/before bench/after
  hpcdl bench compare bench/before bench/after --margin 5 || echo slower"""


@dataclass(frozen=True)
class Comparison:
    """A point in both studies."""

    name: str
    ratio: Estimate
    verdict: str


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench compare ARGV``.

    Returns:
        1 if a point got slower, beyond doubt and by more than the margin.

    Raises:
        BadInput: A folder holds no study, or they have no point in common.
    """
    parser = OneLineParser(
        prog="hpcdl bench compare",
        description="Say whether B is slower than A: the ratio of their samples/s at each common point.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("before", metavar="A", type=Path, help="a study")
    parser.add_argument("after", metavar="B", type=Path, help="a later study of the same points")
    parser.add_argument(
        "--margin", metavar="PERCENT", type=float, default=2.0, help="let this much slower pass (default: 2)"
    )
    options = parser.parse_args(argv)
    before, after = read_study(options.before), read_study(options.after)
    found = compare(before, after, options.margin / 100)
    for one in found:
        print(f"{one.name:<12} B / A {one.ratio!s:<26} {one.verdict}")
    if not (before.is_calm and after.is_calm):
        print("something else kept the machine busy in some of the rounds: take this with care")
    return EXIT_FAILED if any(one.verdict == "slower" for one in found) else EXIT_DONE


def compare(before: Study, after: Study, margin: float) -> List[Comparison]:
    """Compares the points that two studies have in common.

    Raises:
        BadInput: There are none, or they train different things.
    """
    rows = {row.planned: row for row in before.rows}
    common = [(rows[row.planned], row) for row in after.rows if row.planned in rows]
    if not common or before.record["target"] != after.record["target"]:
        raise BadInput(
            f"two studies are compared at the same points of the same target; received {before.folder}"
            f" ({before.record['target']}: {', '.join(p.name for p in rows)}) and {after.folder}"
            f" ({after.record['target']}: {', '.join(row.planned.name for row in after.rows)})"
        )
    found = []
    for old, new in common:
        ratio = unpaired_ratio(new.rates, old.rates)
        found.append(Comparison(old.planned.name, ratio, _verdict(ratio, margin)))
    return found


def _verdict(ratio: Estimate, margin: float) -> str:
    if ratio.low is None or ratio.high is None:
        return "too few rounds to tell"
    if ratio.high < 1 - margin:
        return "slower"
    if ratio.low > 1 + margin:
        return "faster"
    if ratio.low >= 1 - margin and ratio.high <= 1 + margin:
        return "the same"
    return "no difference that can be told"
