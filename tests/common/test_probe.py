"""What a process finds where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hpcdl.common.probe import look_around, read_fabrics, read_gpus, try_folder


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
    assert seen["cpus"] == str(min(one_core))
    assert (seen["cores"], seen["folders"]) == (1, {str(tmp_path): None})
    assert "lo" not in seen["interfaces"]
    assert all(speed is None or speed > 0 for speed in seen["interfaces"].values())
    assert seen["shm_mb"] is None or seen["shm_mb"] > 0


def test_gpus_are_told_by_name_capability_driver_and_what_tells_one_from_another() -> None:
    text = "Tesla V100-SXM2-32GB, 7.0, 535.104.05, GPU-0a\nTesla V100-SXM2-32GB, 7.0, 535.104.05, GPU-1b\n"
    assert read_gpus(text)[1] == {
        "name": "Tesla V100-SXM2-32GB",
        "capability": "7.0",
        "driver": "535.104.05",
        "uuid": "GPU-1b",
    }
    assert read_gpus("No devices were found\n") == []


def test_what_slurm_lets_a_rank_see_is_kept_for_cuda_and_for_rocm() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "", "PATH": "/bin"}
    assert look_around([], environ)["gpus_visible"] == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "ROCR_VISIBLE_DEVICES": "",
    }
    assert look_around([], {})["gpus_visible"] == {}


def test_infiniband_and_slingshot_are_fabrics_and_ethernet_is_none(tmp_path: Path) -> None:
    assert read_fabrics(tmp_path) == []
    for name in ("infiniband/mlx5_0", "net/eth0", "net/hsn1", "net/hsn0"):
        (tmp_path / name).mkdir(parents=True)
    assert read_fabrics(tmp_path) == ["mlx5_0", "hsn0", "hsn1"]
