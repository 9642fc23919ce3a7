"""How far the runs of a job are, from the run folders that rank 0 noted in the job's folder of logs.

Synopsis::

    print("\\n".join(run_lines(job.log_dir)))                 # run  runs/fc64-3f9a01c2: running, 3 of 12 epochs, ...
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence

from hpcdl.common.records import one_of_each, read_history, read_json, read_run_dirs
from hpcdl.common.saying import rate
from hpcdl.common.schedule import steps_per_epoch
from hpcdl.common.step_times import read_step_times, recent_rate

#: Of each rank's file of step times: some thousand steps, and hundreds of such files are read at once.
_MOST_BYTES = 1 << 18


def run_lines(log_dir: Path) -> List[str]:
    """Writes one line for each run of a job; none before the first has begun."""
    return [f"run        {folder}: {_words(folder)}" for folder in read_run_dirs(log_dir)]


def read_records(log_dir: Path) -> List[Mapping[str, Any]]:
    """Reads the records of a job's runs, as far as they can be read."""
    records: List[Mapping[str, Any]] = []
    for folder in read_run_dirs(log_dir):
        with contextlib.suppress(OSError, ValueError):
            records.append(read_json(folder / "run.json"))
    return records


def describe_run(
    record: Mapping[str, Any],
    history: Mapping[str, Sequence[Optional[float]]],
    recent: Optional[float] = None,
) -> str:
    """Says how far a run is.

    Args:
        record: Of ``run.json``.
        history: Of ``history.csv``: the values of the epochs that a checkpoint holds.
        recent: The samples/s of its last steps, which are news until the record has those of the whole run.
    """
    parts = [str(record.get("status", "unknown"))]
    saved = max(map(len, history.values()), default=0)
    epochs = record.get("config", {}).get("epochs")
    if epochs is not None:
        parts.append(f"{saved} of {epochs} epochs saved")
    if saved:
        last = {name: values[-1] for name, values in one_of_each(history).items()}
        parts += [f"{name} {value:.4g}" for name, value in last.items() if value is not None]
    speed = recent or record.get("samples_per_second")
    if speed:
        parts.append(f"{rate(speed)} samples/s")
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
    return describe_run(record, history, _recent_rate(folder, record))


def _recent_rate(folder: Path, record: Mapping[str, Any]) -> Optional[float]:
    """Works the rate of a run that is not over out of what its ranks say of their steps; None: nobody can."""
    config, world_size = record.get("config", {}), record.get("topology", {}).get("world_size")
    num_samples, batch = config.get("num_samples"), config.get("global_batch_size")
    if record.get("status") == "done" or None in (world_size, num_samples, batch):
        return None
    try:
        found = read_step_times(folder, _MOST_BYTES)
    except OSError:
        return None
    return recent_rate(found.ranks, world_size, num_samples / steps_per_epoch(num_samples, batch))
