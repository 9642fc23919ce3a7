"""The command ``hpcdl workloads``: what can be trained without a script.

Synopsis::

    sys.exit(main(["--json"]))
"""

from __future__ import annotations

import dataclasses
import json
from typing import List, Sequence

from hpcdl.common.errors import EXIT_DONE
from hpcdl.common.options import OneLineParser
from hpcdl.common.workloads import Facts, get, names
from hpcdl.launch.columns import in_columns

_EPILOG = """\
examples:
  hpcdl workloads
  hpcdl train --np 2 mnist/fc64                    one of them, as recommended
  hpcdl train --np 2 --dry-run cifar10/cnn         its plan only
  hpcdl workloads --json | jq '.[] | select(.data == "mnist") | .name'"""

_HEAD = (
    "workload",
    "network",
    "parameters",
    "optimizer",
    "rate",
    "batch",
    "epochs",
    "scaling",
    "warmup",
    "workshop",
)
_NOTES = """\
rate and batch are those of one replica; scaling is the learning rate's, warmup in epochs; workshop: test accuracy.
The workshop's Fashion-MNIST: baseline 92.84 %, best 94.2 %. What hpcdl reached: docs/results.md.
Synthetic data are random numbers, for benchmarks. Which data are here: hpcdl data list."""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl workloads ARGV``."""
    parser = OneLineParser(
        prog="hpcdl workloads",
        description="List the ready workloads, data/network, and what is recommended for each.",
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(list(argv))
    listed = [get(name) for name in names()]
    if options.json:
        print(json.dumps([dataclasses.asdict(facts) for facts in listed], indent=2))
    else:
        print(in_columns([_HEAD, *map(_row, listed)], right=(2, 4, 5, 6, 8, 9)))
        print(_NOTES)
    return EXIT_DONE


def _row(facts: Facts) -> List[str]:
    recommended = facts.recommended
    return [
        facts.name,
        facts.description,
        f"{facts.num_parameters:,}",
        recommended.optimizer,
        f"{recommended.learning_rate:g}",
        str(recommended.per_replica_batch_size),
        str(recommended.epochs),
        recommended.lr_scaling,
        f"{recommended.warmup_epochs:g}",
        "" if facts.workshop_accuracy is None else f"{facts.workshop_accuracy:.1f} %",
    ]
