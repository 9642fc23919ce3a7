"""What this machine offers to ranks: cores that this process may use, a CPU limit of its container, GPUs.

Synopsis::

    machine = read_machine(os.environ)
    machine.num_cores      # physical cores that may be used
    machine.num_gpus       # 0 where there is none
"""

from __future__ import annotations

import math
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Mapping, Optional, Tuple

from hpcdl.common.cores import group_cores, siblings_of


@dataclass(frozen=True)
class Machine:
    """One machine, as far as this process may use it.

    Attributes:
        hostname: Its name.
        cores: The physical cores, neighbours together; each one is the tuple of its usable logical CPUs.
        cpu_limit: CPUs' worth of time that the container may use; None where it has no limit.
        num_gpus: GPUs that a program would see.
    """

    hostname: str
    cores: Tuple[Tuple[int, ...], ...]
    cpu_limit: Optional[float] = None
    num_gpus: int = 0

    @property
    def num_cores(self) -> int:
        """Cores that can be busy at the same time: whole cores, and no more than the container's limit."""
        limit = len(self.cores) if self.cpu_limit is None else math.floor(self.cpu_limit)
        return max(1, min(len(self.cores), limit))

    @property
    def is_limited(self) -> bool:
        """Whether the container grants less time than its cores have: then no core is its own."""
        return self.num_cores < len(self.cores)


def read_machine(environ: Mapping[str, str], root: Path = Path("/")) -> Machine:
    """Looks at the machine that this process runs on."""
    return Machine(
        hostname=socket.gethostname(),
        cores=group_cores(os.sched_getaffinity(0), lambda cpu: siblings_of(cpu, root)),
        cpu_limit=read_cpu_limit(root),
        num_gpus=count_gpus(environ, (path.name for path in (root / "dev").glob("nvidia*"))),
    )


def count_gpus(environ: Mapping[str, str], device_names: Iterable[str]) -> int:
    """Counts the GPUs that CUDA would offer.

    The device files ``/dev/nvidia0``, ``/dev/nvidia1``, ... say what is there, and ``CUDA_VISIBLE_DEVICES``,
    where it is set, how much of that: CUDA stops reading it at the first entry that names none, such as an
    index that does not exist, ``-1`` or ``NoDevFiles``. Entries may also be UUIDs, of which one GPU can have several
    (MIG).
    """
    num_files = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in device_names)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or num_files == 0:
        return num_files
    num_named = 0
    for entry in (entry.strip() for entry in visible.split(",")):
        if not (int(entry) < num_files if entry.isdigit() else entry.startswith(("GPU-", "MIG-"))):
            break
        num_named += 1
    return num_named


def gpu_names(environ: Mapping[str, str], num_gpus: int) -> Tuple[str, ...]:
    """Names the GPUs that `count_gpus` counted, in the words of ``CUDA_VISIBLE_DEVICES``."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(num_gpus)) if visible is None else map(str.strip, visible.split(","))
    return tuple(names)[:num_gpus]


def read_cpu_limit(root: Path = Path("/")) -> Optional[float]:
    """Reads the container's CPU limit (cgroup v2 or v1), the tightest on the way up; None: unlimited."""
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, read = root / "sys/fs/cgroup", _limit_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup/cpu", _limit_v1
        else:
            continue
        folder = base / group.lstrip("/")
        # Inside a container the path may be the host's, which is not mounted: the base is then the own group.
        for place in [folder, *folder.parents]:
            limits.append(read(place))
            if place == base:
                break
    return min((limit for limit in limits if limit is not None), default=None)


def _limit_v2(folder: Path) -> Optional[float]:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _limit_v1(folder: Path) -> Optional[float]:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None  # -1 means no limit


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
