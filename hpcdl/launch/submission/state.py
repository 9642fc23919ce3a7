"""What becomes of a job: written by its keeper into the job's folder, read by whoever asks.

Synopsis::

    read_state(folder).get("state")         # None, running, done, failed, requeued, stopped or cancelled
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, Mapping

from hpcdl.common.records import write_json


def read_state(folder: Path) -> Dict[str, Any]:
    """Reads what the keeper has written; {} before it has started, or where the file is damaged."""
    try:
        return dict(json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # damaged
        return {}


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes what becomes of the job; a full disk must not end the run."""
    with contextlib.suppress(OSError):
        write_json(folder / "state.json", state)
