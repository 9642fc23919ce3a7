"""Facts as they were recorded on a healthy cluster of two nodes; tests spoil one of them each."""

from __future__ import annotations

import copy
from typing import Any, Dict, List

from hpcdl.common.words import RunSettings
from hpcdl.launch.doctor.host import HostFacts, Place
from hpcdl.launch.sites.profile import Profile, Source
from hpcdl.launch.sites.reading import Layer, parse_profile
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.words import JobOptions

OWN = Source("a test", "2026-11", "confirmed")
SITE: Dict[str, Any] = {
    "scheduler": "slurm",
    "slurm_version": "22.05.8",
    "default_queue": "batch",
    "mpi": "pmix",
    "account_required": True,
    "container": {"kind": "apptainer", "gpu_flags": ["--nv"]},
    "gpus": {"v100": {"per_node": 2, "cores_per_gpu": 2}},
    "queues": {"batch": {"partition": "batch", "gpus": ["v100"], "cores_per_node": 4, "whole_nodes": True}},
}

HOST = HostFacts(
    slurm_version="22.05.8",
    slurm_problem=None,
    partitions=("batch", "short"),
    mpi_types=("none", "pmi2", "pmix", "pmix_v4"),
    mpirun=None,
    container_version="apptainer version 1.4.5",
    container_mounts=("squashfuse_ll", "squashfuse", "fusermount3"),
    container_is_setuid=False,
    image="/images/hpcdl-cpu.sif",
    image_problem=None,
    account="abc",
    places=(Place("/scratch/me/hpcdl-jobs", None, 49.3, 2_000_000),),
    inherited=(),
    job_id=None,
)

_AROUND: Dict[str, Any] = {
    "hostname": "node1",
    "time": 1795544661.0,
    "cores": 2,
    "cpus": "0-1",
    "threads": {"OMP_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2"},
    "memlock_kb": 8192,
    "memlock_hard_kb": 8192,
    "shm_mb": 11900,
    "fabrics": [],
    "interfaces": {"eth0": 10000},
    "gpus": [],
    "cuda_compat": False,
    "gpus_visible": {},
    "nccl": {},
    "folders": {"/scratch/me/hpcdl-jobs": None},
}

INSIDE: Dict[str, Any] = {
    "around": _AROUND,
    "python": {"version": "3.11.2", "prefix": "/opt/env"},
    "tensorflow": {"version": "2.21.0", "include": "/opt/env/include", "cuda": None},
    "keras": {"version": "3.15.1"},
    "horovod": {
        "version": "0.28.1",
        "folder": "/opt/env/lib/python3.11/site-packages/horovod",
        "tensorflow": "2.21.0",
        "mpi": True,
        "gloo": True,
        "nccl": False,
        "cuda": False,
    },
    "mpi": {"library": "/opt/env/lib/libmpi.so.40", "version": "Open MPI v5.0.11, package: Open MPI"},
    "strangers": [],
    "library_path": [],
}


def inside() -> Dict[str, Any]:
    return copy.deepcopy(INSIDE)


def profile(**changes: Any) -> Profile:
    return parse_profile("box", [Layer({**copy.deepcopy(SITE), **changes}, "test", OWN)])


def layout(site: Profile, launcher: str = "gloo", gpus: str = "0") -> Layout:
    job = JobOptions(nodes=2, time="10", np=4, gpus_per_node=gpus)
    return lay_out(site, job, RunSettings(), launcher)


def seen() -> List[Dict[str, Any]]:
    """What four ranks on two nodes saw."""
    return [
        {
            **copy.deepcopy(_AROUND),
            "rank": rank,
            "local_rank": rank % 2,
            "node_rank": rank // 2,
            "world_size": 4,
            "hostname": f"node{rank // 2 + 1}",
            "cpus": f"{2 * (rank % 2)}-{2 * (rank % 2) + 1}",
            "time": 1795544661.0 + 0.1 * rank,
        }
        for rank in range(4)
    ]


def met() -> List[Dict[str, Any]]:
    """What they found when Horovod had connected them."""
    common = {
        "size": 4,
        "sum": 4.0,
        "start_s": 0.3,
        "interface": "eth0",
        "bytes": 16 * 2**20,
        "clocks": [1795544670.0, 1795544671.0],
        "seconds": 0.05,
        "gpus": 0,
        "on_gpu": False,
    }
    place = [
        {"rank": rank, "local_rank": rank % 2, "node_rank": rank // 2, "world_size": 4} for rank in range(4)
    ]
    return [{**one, **copy.deepcopy(common)} for one in place]
