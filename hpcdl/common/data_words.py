"""The words of ``hpcdl data``: parsed where the user types, and again by the half of hpcdl that reads the data.

Synopsis::

    command = parse_data(["fetch", "mnist", "--to", "/scratch/data"])
    command.action, command.names, command.to               # "fetch", ("mnist",), "/scratch/data"
    data_argv(command)                                      # the same again, as argv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from hpcdl.common.checks import did_you_mean
from hpcdl.common.data_sets import names, spec_of
from hpcdl.common.errors import BadInput
from hpcdl.common.options import OneLineParser

_ACTIONS = ("list", "fetch")

HELP = """\
usage: hpcdl data list [--data-dir DIR] [--json]
       hpcdl data fetch NAME [NAME ...] [--to DIR]

Say which ready data sets are on this machine, or fetch them: on a login node, since compute nodes have no internet.

`hpcdl data list --help` and `hpcdl data fetch --help` tell more."""

_LIST_EPILOG = """\
Looked up in --data-dir, $HPCDL_DATA, hpcdl's cache ($HPCDL_CACHE/data, by default ~/.cache/hpcdl/data), Keras' cache,
and the folder of Debian's package; the first place counts. What is found is read, and its SHA-256 checked.

examples:
  hpcdl data list
  hpcdl data list --data-dir /scratch/data
  hpcdl data list --json | jq '.[] | select(.state == "right") | .name'

Exit status: 0 done, 1 a file is not what it should be, 2 bad input."""

_FETCH_EPILOG = f"""\
NAME is one of {", ".join(names())}.
Comes from Debian's package, where there is one (no root needed), or from the address that Keras downloads from. Only
what has the known SHA-256 is kept. What is there already is checked only.

examples:
  hpcdl data fetch fashion_mnist                   into hpcdl's cache, where every run finds it
  hpcdl data fetch mnist cifar10 --to /scratch/data
  hpcdl train --data-dir /scratch/data mnist/cnn_dropout

Exit status: 0 they are there and right, 2 one cannot be had, or is damaged; those before it stay."""


@dataclass(frozen=True)
class DataCommand:
    """A parsed command line of ``hpcdl data``.

    Attributes:
        action: ``list`` or ``fetch``.
        names: Of the data sets to fetch.
        data_dir: Where ``list`` looks first.
        to: Where ``fetch`` puts what it gets; None: hpcdl's cache.
        as_json: Whether ``list`` writes JSON.
    """

    action: str
    names: Tuple[str, ...] = ()
    data_dir: Optional[str] = None
    to: Optional[str] = None
    as_json: bool = False


def parse_data(argv: Sequence[str]) -> DataCommand:
    """Parses what stands after ``hpcdl data``. ``--help`` prints the help and leaves with SystemExit(0).

    Raises:
        BadInput: There is no such action, data set or option.
    """
    action = argv[0] if argv else ""
    if action in ("-h", "--help"):
        print(HELP)
        raise SystemExit(0)
    if action not in _ACTIONS:
        hint = did_you_mean(action, _ACTIONS, most=1, cutoff=0.6)
        raise BadInput(
            f"hpcdl data takes {' or '.join(_ACTIONS)}; received {action or 'nothing'}; {hint}see hpcdl data --help"
        )
    options = (_list_parser() if action == "list" else _fetch_parser()).parse_args(list(argv[1:]))
    if action == "list":
        return DataCommand(action, data_dir=options.data_dir, as_json=options.json)
    for name in options.names:
        spec_of(name)
    return DataCommand(action, tuple(options.names), to=options.to)


def data_argv(command: DataCommand) -> List[str]:
    """Writes a command as words that `parse_data` reads as the same command."""
    words = [command.action, *command.names]
    if command.data_dir is not None:
        words += ["--data-dir", command.data_dir]
    if command.to is not None:
        words += ["--to", command.to]
    return [*words, *(["--json"] if command.as_json else [])]


def _list_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="hpcdl data list", description="Say which ready data sets are here.", epilog=_LIST_EPILOG
    )
    parser.add_argument("--data-dir", metavar="DIR", help="look in DIR first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _fetch_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="hpcdl data fetch", description="Fetch ready data sets, and check them.", epilog=_FETCH_EPILOG
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="a data set")
    parser.add_argument("--to", metavar="DIR", help="put them into DIR, for --data-dir or HPCDL_DATA")
    return parser
