"""What a job has used of what it asked for, and what is advised."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, List, Optional

import pytest

from hpcdl.common.words import RunSettings
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.submission.layout import lay_out
from hpcdl.launch.submission.usage import usage_lines
from hpcdl.launch.submission.words import JobOptions

#: 8 ranks on a node, 1 h.
LAYOUT = lay_out(load_profile("bridges2", Path("/nowhere")), JobOptions(time="60"), RunSettings())
KEPT = {"state": "done", "started": 0.0, "ended": 3000.0}


def lines(
    memory_mb: Optional[int] = None, host: int = 0, cores: Optional[float] = None, **kept: Any
) -> List[str]:
    layout = dataclasses.replace(LAYOUT, memory_mb=memory_mb)
    records = [{"memory": {"host_peak_bytes": host, "gpu_peak_bytes": None}}, {"status": "failed"}]
    return usage_lines(layout, {**KEPT, **kept}, records, cores)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({}, "time used  83 % of 1:00 h"),
        ({"ended": 600.0}, "time used  17 % of 1:00 h; a shorter --time lets a job start sooner"),
        ({"ended": 600.0, "restarts": 1}, "time used  17 % of 1:00 h"),
        ({"ended": 600.0, "state": "failed"}, "time used  17 % of 1:00 h"),
    ],
)
def test_time_that_a_whole_run_did_not_need_is_told(kept: Any, said: str) -> None:
    assert lines(**kept) == [said]


@pytest.mark.parametrize(
    ("memory_mb", "said"),
    [
        (None, "memory     8.0 GB of a node at the most"),
        (8000, "memory     8.0 GB of a node at the most, 95 % of what was asked for; ask for more"),
        (12000, "memory     8.0 GB of a node at the most, 64 % of what was asked for"),
        (80000, "memory     8.0 GB of a node at the most, 10 % of what was asked for; --mem 10G would do"),
    ],
)
def test_memory_of_the_largest_rank_is_set_beside_what_was_asked_for(
    memory_mb: Optional[int], said: str
) -> None:
    assert lines(memory_mb, host=10**9)[1] == said


def test_gpus_and_cores_are_told_where_somebody_knows() -> None:
    record = {"memory": {"host_peak_bytes": 0, "gpu_peak_bytes": 5_100_000_000}, "gpu_use_percent": 80.2}
    assert usage_lines(LAYOUT, {}, [record], None) == [
        "GPU memory 5.1 GB of a GPU at the most",
        "GPUs       busy for 80 % of the time",
    ]
    (little,) = usage_lines(LAYOUT, {}, [{"gpu_use_percent": 20.4}, {"gpu_use_percent": 12.0}], None)
    assert little == (
        "GPUs       busy for 20 % of the time; they wait for the input, or the batch is small for them (hpcdl bench"
        " tells which)"
    )
    assert lines(cores=0.2)[-1] == "cores      busy for 20 % of the time"
    assert usage_lines(dataclasses.replace(LAYOUT, gpus_per_node=0), {}, [], 0.2)[0].endswith("input is slow")
