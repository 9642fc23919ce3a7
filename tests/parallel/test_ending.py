"""A process ends also while a slow reader of data is at work in it, with the status that it had before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bare import environ_of_script
from tests.parallel.launching import PROGRAMS

#: It needs some seconds; one that waits for a thread that is gone does so for ever.
TIMEOUT_S = 120


BY_ITSELF = ()
UNDER_HPCDL = ("-m", "hpcdl", "train", "--replicas-per-process", "2", "--oversubscribe")
ENDS = {"stop": 0, "error": 1, "validation": 3, "loop": 0}


@pytest.mark.parametrize(
    ("start", "end", "status"),
    [
        *((start, end, status) for start in (BY_ITSELF, UNDER_HPCDL) for end, status in ENDS.items()),
        (BY_ITSELF, "older", 0),
    ],
)
def test_a_process_ends_while_its_data_are_being_read(start, end, status, tmp_path):
    done = subprocess.run(
        [sys.executable, *start, str(PROGRAMS / "slow_reader.py"), end],
        env=environ_of_script(),
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.count("ValueError: the cause") == (end == "error")
