"""What has become of a job, from what its keeper wrote, Slurm's queue, and whether its process lives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Optional

import pytest

from hpcdl.launch.processes import Process
from hpcdl.launch.submission.folders import Submitted, state_of
from hpcdl.launch.submission.state import write_state


@pytest.mark.parametrize(
    ("kept", "row", "is_alive", "word"),
    [
        (None, None, True, "running"),
        ("running", None, True, "running"),
        ("requeued", None, True, "running"),  # submitit starts its keeper again
        ("cancelled", None, True, "cancelled"),  # its keeper is leaving
        ("done", None, False, "done"),
        (None, None, False, "lost"),
        ("running", None, False, "lost"),
        ("running", "PENDING|Resources||", False, "waiting"),
        ("running", "RUNNING|None|1:00|v[005-006]", False, "running"),
    ],
)
def test_a_job_is_what_its_keeper_says_unless_nobody_keeps_it(
    kept: Optional[str], row: Optional[str], is_alive: bool, word: str, tmp_path: Path
) -> None:
    if kept is not None:
        write_state(tmp_path, {"state": kept})
    job = SimpleNamespace(folder=str(tmp_path))
    submitted = Submitted("7", job, Process(7, 1))  # type: ignore[arg-type]
    queue = {} if row is None else {"7": row}
    assert state_of(submitted, queue, lambda process: is_alive).word == word
