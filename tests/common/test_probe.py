"""What a process finds where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hpcdl.common.probe import look_around, read_gpus, try_folder


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    assert try_folder(str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []
    assert try_folder(str(tmp_path / "none")) == "it is not there"
    assert try_folder("/proc/self") is not None


def test_it_says_cores_limits_and_folders_as_a_line_of_json(tmp_path: Path) -> None:
    one_core = {min(os.sched_getaffinity(0))}
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl.common.probe", str(tmp_path)],
        preexec_fn=lambda: os.sched_setaffinity(0, one_core),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert (seen["cores"], seen["folders"]) == (1, {str(tmp_path): None})
    assert seen["shm_mb"] is None or seen["shm_mb"] > 0


def test_gpus_are_told_by_name_capability_and_driver() -> None:
    text = "Tesla V100-SXM2-32GB, 7.0, 535.104.05\nTesla V100-SXM2-32GB, 7.0, 535.104.05\n"
    assert read_gpus(text)[1] == {"name": "Tesla V100-SXM2-32GB", "capability": "7.0", "driver": "535.104.05"}
    assert read_gpus("No devices were found\n") == []


def test_what_slurm_lets_a_rank_see_is_kept() -> None:
    assert look_around([], {"CUDA_VISIBLE_DEVICES": "0,1"})["gpus_visible"] == "0,1"
    assert look_around([], {})["gpus_visible"] is None
