"""What a process finds where it runs: cores, limits, memory that is shared, GPUs, folders, the clock.

Needs the standard library only, so that it runs on a login node, inside any image and as each rank of a job.

Synopsis::

    python3 -m hpcdl.common.probe /my/run/folder            # a line of JSON
"""

from __future__ import annotations

import glob
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hpcdl.common.cores import format_cpu_list
from hpcdl.common.interfaces import ipv4_interfaces

#: What tells a process which GPUs it may use: CUDA's variable, and those of ROCm.
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
#: What tells libraries how many threads a process may have.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
#: What tells NCCL which network to take.
NCCL_VARIABLES = ("NCCL_NET", "NCCL_IB_DISABLE", "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME")
_GPU_QUERY = "name,compute_cap,driver_version,uuid"


def look_around(folders: Sequence[str], environ: Mapping[str, str]) -> Dict[str, Any]:
    """Gathers what this process finds.

    Args:
        folders: What a run reads and writes; each is tried by a file that is written and renamed.
        environ: The process's variables.
    """
    cpus = os.sched_getaffinity(0)
    soft, hard = (_kilobytes(limit) for limit in resource.getrlimit(resource.RLIMIT_MEMLOCK))
    return {
        "hostname": socket.gethostname(),
        "time": time.time(),
        "cores": len(cpus),
        "cpus": format_cpu_list(cpus),
        "threads": _set_of(THREAD_VARIABLES, environ),
        "memlock_kb": soft,
        "memlock_hard_kb": hard,
        "shm_mb": _size_mb("/dev/shm"),
        "fabrics": read_fabrics(Path("/sys/class")),
        "interfaces": {name: _mbit_per_s(name) for name in ipv4_interfaces() if name != "lo"},
        "gpus": read_gpus(ask_nvidia_smi()),
        "cuda_compat": bool(glob.glob("/usr/local/cuda*/compat/**/libcuda.so.*", recursive=True)),
        "gpus_visible": _set_of(GPU_VARIABLES, environ),
        "nccl": _set_of(NCCL_VARIABLES, environ),
        "folders": {folder: try_folder(folder) for folder in folders},
    }


def try_folder(folder: str) -> Optional[str]:
    """Writes, renames and reads a small file in a folder, and takes it away; gives what is wrong, None if nothing."""
    name = os.path.join(folder, f".hpcdl-{socket.gethostname()}-{os.getpid()}")
    if not os.path.isdir(folder):
        return "it is not there"
    try:
        with open(name + ".tmp", "w", encoding="ascii") as file:
            file.write("hpcdl")
        os.replace(name + ".tmp", name)
        with open(name, encoding="ascii") as file:
            return None if file.read() == "hpcdl" else "what was written is not what is read"
    except OSError as problem:
        return problem.strerror or str(problem)
    finally:
        for left in (name, name + ".tmp"):
            if os.path.exists(left):
                os.unlink(left)


def read_gpus(text: str) -> List[Dict[str, str]]:
    """Reads what nvidia-smi prints for `_GPU_QUERY`; where that is no list, there are none."""
    keys = ("name", "capability", "driver", "uuid")
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [dict(zip(keys, row)) for row in rows if len(row) == len(keys)]


def read_fabrics(classes: Path) -> List[str]:
    """Names what is there of InfiniBand and its kin, and of Slingshot, whose interfaces are called hsn0, hsn1, ..."""
    return [*_names(classes / "infiniband"), *(n for n in _names(classes / "net") if n.startswith("hsn"))]


def _set_of(names: Sequence[str], environ: Mapping[str, str]) -> Dict[str, str]:
    return {name: environ[name] for name in names if name in environ}


def _mbit_per_s(interface: str) -> Optional[int]:
    """Gives the speed of an interface, where its driver tells."""
    try:
        speed = int(Path("/sys/class/net", interface, "speed").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None


def ask_nvidia_smi() -> str:
    """Gives what nvidia-smi prints for `_GPU_QUERY`; "" where it is not there, or does not answer."""
    if shutil.which("nvidia-smi") is None:
        return ""
    argv = ["nvidia-smi", f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def _kilobytes(limit: int) -> Optional[int]:
    return None if limit == resource.RLIM_INFINITY else limit // 1024


def _size_mb(folder: str) -> Optional[int]:
    try:
        return shutil.disk_usage(folder).total // 2**20
    except OSError:
        return None


def _names(path: Path) -> List[str]:
    return sorted(one.name for one in path.iterdir()) if path.is_dir() else []


if __name__ == "__main__":
    print("\n" + json.dumps(look_around(sys.argv[1:], os.environ)), flush=True)
