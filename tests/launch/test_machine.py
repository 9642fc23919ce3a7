"""What a machine offers: cores, the limit of a container, GPUs; read from recorded files."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pytest

from hpcdl.launch.machine import (
    Machine,
    count_gpus,
    gpu_names,
    read_cpu_limit,
    read_machine,
)


def write(root: Path, files: Dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("visible", "files", "count"),
    [
        (None, [], 0),
        (None, ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], 2),
        ("", ["nvidia0", "nvidia1"], 0),
        ("-1", ["nvidia0", "nvidia1"], 0),
        ("1", ["nvidia0", "nvidia1"], 1),
        ("0,1,2", ["nvidia0", "nvidia1"], 2),
        ("MIG-a, MIG-b,MIG-c", ["nvidia0"], 3),
        ("0,1", [], 0),
        ("NoDevFiles", ["nvidia0", "nvidia1"], 0),
        ("0,none,1", ["nvidia0", "nvidia1"], 1),
        ("GPU-8932f937", ["nvidia0"], 1),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(visible: Optional[str], files: List[str], count: int) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert count_gpus(environ, files) == count


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ("0", "1")), ("3, 5,-1,2", ("3", "5")), ("GPU-a,MIG-b", ("GPU-a", "MIG-b"))],
)
def test_gpus_have_the_names_that_cuda_knows_them_by(visible: Optional[str], names: Tuple[str, ...]) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpu_names(environ, 2) == names
    assert gpu_names(environ, 0) == ()


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/123\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_cpu_limit_of_a_container_is_read(
    tmp_path: Path, files: Dict[str, str], limit: Optional[float]
) -> None:
    assert read_cpu_limit(write(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("limit", "cores", "limited"), [(None, 4, False), (2.5, 2, True), (0.5, 1, True), (9, 4, False)]
)
def test_a_limit_lowers_the_number_of_cores_but_not_below_one(
    limit: Optional[float], cores: int, limited: bool
) -> None:
    machine = Machine("host", ((0,), (1,), (2,), (3,)), limit)
    assert (machine.num_cores, machine.is_limited) == (cores, limited)


def test_this_machine_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": ""})
    machine = read_machine({}, tmp_path)
    assert machine.num_gpus == 1
    assert machine.num_cores >= 1
    assert machine.hostname
