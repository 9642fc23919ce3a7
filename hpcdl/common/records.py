"""The files that a run writes and others read.

``run.json`` is the record of a run: first written with status ``running``, so that a run which died can be told from
one that ended. ``history.csv`` has a row for each epoch.

Synopsis::

    write_json(run_dir / "run.json", {"schema_version": SCHEMA_VERSION, "status": "running", ...})
    write_history(run_dir / "history.csv", {"loss": [0.5, 0.4], "val_loss": [None, 0.5]})
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from hpcdl.common.errors import BadInput
from hpcdl.common.files import replace_text

#: Of run.json; raised when the meaning of a key changes.
SCHEMA_VERSION = 1
RUN_DIRS = "run-dirs.txt"
#: Names the folder in which a process without a launcher notes its run folders.
NOTES_DIR = "HPCDL_NOTES_DIR"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file so that a reader sees the old one or the new one, never a part."""
    replace_text(path, as_json(content) + "\n")


def as_json(content: Any) -> str:
    """Writes JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_bytes(path: str) -> bytes:
    """Reads a small file; a report reads tens of thousands, and `open` would take half as long again for each.

    Raises:
        FileNotFoundError: There is none.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 20), b""))
    finally:
        os.close(file)


def read_json(path: Union[Path, str]) -> Dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not a JSON object.
    """
    content = json.loads(read_bytes(str(path)).decode("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not an object")
    return content


def check_schema(record: Mapping[str, Any], known: int, path: object) -> None:
    """Refuses a record of a later hpcdl, whose keys may mean something else; one without a schema is taken as known.

    Raises:
        BadInput: It has another schema.
    """
    found = record.get("schema_version", known)
    if found != known:
        raise BadInput(
            f"this hpcdl reads schema {known}; received {path} of schema {found!r}; read it with the hpcdl that wrote"
            " it"
        )


def write_history(path: Path, history: Mapping[str, Sequence[Optional[float]]]) -> None:
    """Writes one row for each epoch, counted from 1: the values of all metrics; of None an empty cell."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["epoch", *history])
    rows.writerows([epoch, *values] for epoch, values in enumerate(zip_longest(*history.values()), start=1))
    replace_text(path, table.getvalue())


def read_history(path: Path) -> Dict[str, List[Optional[float]]]:
    """Reads what `write_history` wrote: a value for each epoch, by name; None where the epoch had none.

    Raises:
        ValueError: It is not such a table.
    """
    with path.open(newline="", encoding="utf-8") as file:
        try:
            head, *rows = list(csv.reader(file)) or [[]]
        except csv.Error as problem:
            raise ValueError(f"{path.name} is not a table with a column of epochs: {problem}") from problem
    if head[:1] != ["epoch"] or any(len(row) != len(head) for row in rows):
        raise ValueError(f"{path.name} is not a table with a column of epochs")
    return {name: [float(row[i]) if row[i] else None for row in rows] for i, name in enumerate(head) if i > 0}


def one_of_each(history: Mapping[str, Sequence[Optional[float]]]) -> Dict[str, List[Optional[float]]]:
    """Gives one value for each metric and epoch: the mean of those in columns ``f1_score[0]``, ``f1_score[1]``, ...."""
    parts: Dict[str, List[Sequence[Optional[float]]]] = {}
    for name, values in history.items():
        parts.setdefault(re.sub(r"\[\d+\]$", "", name), []).append(values)
    return {name: [_mean(row) for row in zip(*of_name)] for name, of_name in parts.items()}


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def note_run_dir(environ: Mapping[str, str], run_dir: Path) -> None:
    """Tells whoever started the ranks where the run is: one absolute path in each line of a file.

    It lies in ``$HPCDL_STATUS_DIR``, or for a process without a launcher in ``$HPCDL_NOTES_DIR``.
    """
    folder = environ.get("HPCDL_STATUS_DIR") or environ.get(NOTES_DIR)
    if folder:
        with open(os.path.join(folder, RUN_DIRS), "a", encoding="utf-8") as file:
            file.write(f"{run_dir.resolve()}\n")


def read_run_dirs(folder: Path) -> List[Path]:
    """Lists the run folders that `note_run_dir` noted, in the order of the fits, each once."""
    try:
        lines = (folder / RUN_DIRS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Path(line) for line in dict.fromkeys(lines)]
