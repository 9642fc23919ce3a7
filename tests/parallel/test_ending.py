"""A process ends also while a slow reader of data is at work in it, with the status that it had before."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bare import environ_of_script
from tests.parallel.launching import PROGRAMS

#: It needs some seconds; one that waits for a thread that is gone does so for ever.
TIMEOUT_S = 120


@pytest.mark.parametrize(("end", "status"), [("stop", 0), ("error", 1), ("validation", 3), ("loop", 0)])
@pytest.mark.parametrize(
    "start",
    [
        ("a script by itself",),
        ("hpcdl train", "-m", "hpcdl", "train", "--replicas-per-process", "2", "--oversubscribe"),
    ],
    ids=lambda words: words[0],
)
def test_a_process_ends_while_its_data_are_being_read(start, end, status, tmp_path):
    done = subprocess.run(
        [sys.executable, *start[1:], str(PROGRAMS / "slow_reader.py"), end],
        env=environ_of_script(),
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stderr.count("ValueError: the cause") == (end == "error")
