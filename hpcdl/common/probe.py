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

_GPU_QUERY = "name,compute_cap,driver_version"


def look_around(folders: Sequence[str], environ: Mapping[str, str]) -> Dict[str, Any]:
    """Gathers what this process finds.

    Args:
        folders: What a run reads and writes; each is tried by a file that is written and renamed.
        environ: The process's variables.
    """
    soft, hard = (_kilobytes(limit) for limit in resource.getrlimit(resource.RLIMIT_MEMLOCK))
    return {
        "hostname": socket.gethostname(),
        "time": time.time(),
        "cores": len(os.sched_getaffinity(0)),
        "memlock_kb": soft,
        "memlock_hard_kb": hard,
        "shm_mb": _size_mb("/dev/shm"),
        "fabrics": _names("/sys/class/infiniband"),
        "interfaces": [name for name in _names("/sys/class/net") if name != "lo"],
        "gpus": read_gpus(_nvidia_smi()),
        "cuda_compat": bool(glob.glob("/usr/local/cuda*/compat/**/libcuda.so.*", recursive=True)),
        "gpus_visible": environ.get("CUDA_VISIBLE_DEVICES"),
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
    keys = ("name", "capability", "driver")
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [dict(zip(keys, row)) for row in rows if len(row) == len(keys)]


def _nvidia_smi() -> str:
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


def _names(folder: str) -> List[str]:
    path = Path(folder)
    return sorted(one.name for one in path.iterdir()) if path.is_dir() else []


if __name__ == "__main__":
    print("\n" + json.dumps(look_around(sys.argv[1:], os.environ)), flush=True)
