"""The folder of a study: begun once, and gone on with only by what began it.

Synopsis::

    folder = new_folder("fashion_mnist/cnn_dropout")               # bench/fashion_mnist-cnn_dropout-20261124T120000Z
    open_study(folder, plan.to_json(), argv)                       # study.json
"""

from __future__ import annotations

import datetime
import json
import re
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

from hpcdl.common.errors import BadInput
from hpcdl.common.records import write_json
from hpcdl.launch.bench.study import SCHEMA_VERSION, read_record
from hpcdl.launch.git import own_source


def new_folder(target: str) -> Path:
    """Names a folder for a study of a TARGET."""
    name = re.sub(r"[^\w.-]+", "-", target)
    return Path("bench") / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"


def check_study(folder: Path, mine: Mapping[str, Any]) -> bool:
    """Makes sure that a study may begin in a folder, or is the one that goes on there; nothing is written.

    Args:
        folder: It need not exist.
        mine: What is measured.

    Returns:
        Whether it goes on.

    Raises:
        BadInput: Another study lies there, or one that cannot be read.
    """
    if not (folder / "study.json").exists():
        return False
    found = read_record(folder)
    as_read: Dict[str, Any] = json.loads(json.dumps(mine))
    differ = [name for name in mine if name != "rounds" and found.get(name) != as_read[name]]
    if differ:
        said = ", ".join(_both(name, found.get(name), as_read[name]) for name in differ)
        raise BadInput(
            f"a study goes on with what it began; received {folder}, which differs in {said};"
            " pass another --study, or the same options"
        )
    return True


def open_study(folder: Path, mine: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Begins a study, or makes sure that it is this one which goes on.

    Args:
        folder: As for `check_study`.
        mine: What is measured.
        argv: The words as they were typed.

    Raises:
        BadInput: As `check_study`.
    """
    if check_study(folder, mine):
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = own_source()
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": "study",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "words": list(argv),
        "hostname": socket.gethostname(),
        "source": None if source is None else asdict(source),
        **mine,
    }
    write_json(folder / "study.json", record)


def _both(name: str, there: Any, here: Any) -> str:
    """Names what differs, with the values where they are words or numbers."""
    is_short = not isinstance(there, (dict, list)) and not isinstance(here, (dict, list))
    return f"{name} ({there} there, {here} here)" if is_short else name
