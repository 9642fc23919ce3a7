"""What a job that is over has used of what it asked for, with advice: from its own records, and from sacct if it tells.

Synopsis::

    print("\\n".join(usage_lines(job.layout, kept, records, cores_busy(job_id))))
"""

from __future__ import annotations

import math
from typing import Any, List, Mapping, Optional, Sequence

from hpcdl.launch.amounts import hours_of
from hpcdl.launch.submission.layout import Layout

_GB = 1e9
_MB = 1024**2
#: Less than this part of what was asked for is worth a word; and more than that.
_LITTLE = 0.5
_NEARLY_ALL = 0.9
#: What to ask for, given what was used.
_MARGIN = 1.25


def usage_lines(
    layout: Layout, kept: Mapping[str, Any], records: Sequence[Mapping[str, Any]], cores: Optional[float]
) -> List[str]:
    """Writes a line for each thing whose use is known.

    Args:
        layout: What the job asked for.
        kept: What its keeper has noted.
        records: The ``run.json`` of its runs.
        cores: For which part of the time its cores were busy; None: nobody tells.
    """
    lines = []
    limit_s = 60 * layout.time_limit_min
    if layout.launcher != "here" and limit_s and {"started", "ended"} <= set(kept):
        used_s = kept["ended"] - kept["started"]
        is_short = kept.get("state") == "done" and not kept.get("restarts") and used_s < _LITTLE * limit_s
        advice = "; a shorter --time lets a job start sooner" if is_short else ""
        lines.append(
            f"time used  {_percent(used_s / limit_s)} of {hours_of(layout.time_limit_min)} h{advice}"
        )
    of_rank = max((_peak(record, "host_peak_bytes") for record in records), default=0)
    if of_rank:
        lines.append(f"memory     {_memory(of_rank * layout.processes_per_node, layout.memory_mb)}")
    of_gpu = max((_peak(record, "gpu_peak_bytes") for record in records), default=0)
    if of_gpu:
        lines.append(f"GPU memory {of_gpu / _GB:.1f} GB of a GPU at the most")
    busy = [one["gpu_use_percent"] for one in records if one.get("gpu_use_percent") is not None]
    if busy:
        is_little = max(busy) < 100 * _LITTLE
        lines.append(
            f"GPUs       busy for {max(busy):.0f} % of the time"
            + (
                "; they wait for the input, or the batch is small for them (hpcdl bench tells which)"
                if is_little
                else ""
            )
        )
    if cores is not None:
        is_little = cores < _LITTLE and not layout.gpus_per_node
        lines.append(
            f"cores      busy for {_percent(cores)} of the time"
            + ("; fewer (--cpus-per-task) might do, or the input is slow" if is_little else "")
        )
    return lines


def _memory(used_bytes: float, asked_mb: Optional[int]) -> str:
    used = f"{used_bytes / _GB:.1f} GB of a node at the most"
    if asked_mb is None:
        return used
    part = used_bytes / (asked_mb * _MB)
    said = f"{used}, {_percent(part)} of what was asked for"
    if part < _LITTLE:
        return f"{said}; --mem {math.ceil(_MARGIN * used_bytes / 1024**3)}G would do"
    return f"{said}; ask for more" if part > _NEARLY_ALL else said


def _peak(record: Mapping[str, Any], name: str) -> int:
    return (record.get("memory") or {}).get(name) or 0


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"
