"""The command ``hpcdl data``: which ready data sets are on this machine, and fetching them.

The half of hpcdl that reads data does the work, in a process of its own; this one parses, and writes the table.

Synopsis::

    sys.exit(main(["fetch", "fashion_mnist"]))
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping, Sequence

from hpcdl.common.data_words import HELP, data_argv, parse_data
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.launch.columns import in_columns

_HEAD = ("data set", "what", "train", "test", "found in", "folder", "size", "SHA-256")
_MEGABYTE = 1e6


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl data ARGV``.

    Raises:
        BadInput: There is no such action, data set or option.
    """
    if not argv:
        print(HELP, file=sys.stderr)
        return BadInput.exit_status
    command = parse_data(argv)
    words = [sys.executable, "-m", "hpcdl.runtime.ready_data", *data_argv(command)]
    if command.action == "fetch":
        return subprocess.call(words)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != EXIT_DONE:
        return done.returncode
    data_sets = json.loads(done.stdout)
    print(json.dumps(data_sets, indent=2) if command.as_json else render(data_sets))
    return EXIT_FAILED if any(data_set["state"] == "wrong" for data_set in data_sets) else EXIT_DONE


def render(data_sets: Sequence[Mapping[str, Any]]) -> str:
    """Writes the table, what is wrong, and how to get what is missing."""
    lines = [in_columns([_HEAD, *map(_row, data_sets)], right=(2, 3, 6))]
    lines += [f"{data_set['name']}: {data_set['problem']}" for data_set in data_sets if data_set["problem"]]
    missing = [data_set["name"] for data_set in data_sets if data_set["state"] == "not here"]
    if missing:
        lines.append(
            f"to get what is missing, where there is a network: hpcdl data fetch {' '.join(missing)}"
        )
    return "\n".join(lines)


def _row(data_set: Mapping[str, Any]) -> Sequence[str]:
    rows = f"{data_set['num_train']:,}", f"{data_set['num_test']:,}"
    if data_set["state"] == "not here":
        return data_set["name"], data_set["description"], *rows, "-", "-", "-", "-"
    folder = str(Path(data_set["files"][0]).parent)
    size = f"{data_set['num_bytes'] / _MEGABYTE:.1f} MB"
    return (
        data_set["name"], data_set["description"], *rows, data_set["place"], folder, size, data_set["state"],
    )  # fmt: skip
