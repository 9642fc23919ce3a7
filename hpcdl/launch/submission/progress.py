"""How far the runs of a job are, from the run folders that rank 0 noted in the job's folder of logs.

Synopsis::

    print("\\n".join(run_lines(job.log_dir)))                 # run  runs/fc64-3f9a01c2: running, 3 of 12 epochs, ...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Sequence

from hpcdl.common.records import read_history, read_json, read_run_dirs


def run_lines(log_dir: Path) -> List[str]:
    """Writes one line for each run of a job; none before the first has begun."""
    return [f"run        {folder}: {_words(folder)}" for folder in read_run_dirs(log_dir)]


def describe_run(record: Mapping[str, Any], history: Mapping[str, Sequence[float]]) -> str:
    """Says how far a run is.

    Args:
        record: Of ``run.json``.
        history: Of ``history.csv``: the values of the epochs that a checkpoint holds.
    """
    parts = [str(record.get("status", "unknown"))]
    saved = min((len(values) for values in history.values()), default=0)
    epochs = record.get("config", {}).get("epochs")
    if epochs is not None:
        parts.append(f"{saved} of {epochs} epochs saved")
    if saved:
        parts += [f"{name} {values[-1]:.4g}" for name, values in history.items()]
    if record.get("samples_per_second"):
        parts.append(f"{record['samples_per_second']:.0f} samples/s")
    if record.get("error"):
        parts.append(str(record["error"]))
    return ", ".join(parts)


def _words(folder: Path) -> str:
    try:
        record = read_json(folder / "run.json")
    except FileNotFoundError:
        return "about to begin"
    except (OSError, ValueError) as problem:
        return f"its record cannot be read: {problem}"
    try:
        history = read_history(folder / "history.csv")
    except (OSError, ValueError):
        history = {}  # before the first checkpoint there is none
    return describe_run(record, history)
