"""What ``run.json`` says of a run.

Synopsis::

    record = new_record(plan, model, seed, topology, identity, os.environ)
    record.update(status="done", ended=now())
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.common.plan import Plan
from hpcdl.common.provenance import environment_that_matters, read_source
from hpcdl.common.records import SCHEMA_VERSION
from hpcdl.common.topology import Topology
from hpcdl.runtime.inventory import describe_driver, describe_mpi, describe_nccl
from hpcdl.runtime.keras_edge import package_of


def new_record(
    plan: Plan,
    model: Any,
    seed: int,
    topology: Topology,
    identity: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Dict[str, Any]:
    """Describes a run that begins: status ``running``."""
    source = read_source(Path(hpcdl.__file__).resolve().parent, environ)
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "title": plan.title,
        "started": now(),
        "identity": dict(identity),
        "data": None if plan.data_origin is None else dict(plan.data_origin),
        "topology": {
            "launcher": plan.launcher,
            "world_size": plan.world_size,
            "num_nodes": plan.num_nodes,
            "hostname": topology.hostname,
        },
        "config": {
            "strategy": plan.strategy,
            "replicas_per_process": plan.replicas_per_process,
            "per_replica_batch_size": plan.batches.per_replica_batch_size,
            "global_batch_size": plan.batches.global_batch_size,
            "num_samples": plan.num_samples,
            "epochs": plan.epochs_to_run,
            "learning_rate": plan.learning_rate,
            "lr_scaling": plan.lr_scaling,
            "lr_factor": plan.factor,
            "warmup_epochs": plan.warmup_epochs,
            "seed": seed,
            "precision": tf.keras.mixed_precision.global_policy().name,
            "optimizer": type(model.optimizer).__name__,
            "num_parameters": model.count_params(),
        },
        "versions": versions(),
        "source": None if source is None else dataclasses.asdict(source),
        "libraries": libraries(),
        "environ": environment_that_matters(environ),
        "job_id": environ.get("SLURM_JOB_ID"),
        "log_dir": environ.get("HPCDL_STATUS_DIR"),
        "host_load_at_start": os.getloadavg()[0],
    }


def versions() -> Dict[str, Optional[str]]:
    """Lists the versions of what a run computes with; None: not there, or not known."""
    return {
        "hpcdl": hpcdl.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": _version_of(package_of(tf.keras.Model)),  # or of tf_keras in its place
        **{name: _version_of(name) for name in ("numpy", "horovod")},
    }


def libraries() -> Dict[str, Optional[str]]:
    """Lists the versions of what the exchange goes through, as far as it is loaded; None: it is not."""
    is_loaded = "horovod.tensorflow" in sys.modules
    found: Dict[str, Optional[Mapping[str, Any]]] = (
        {"mpi": describe_mpi(), "nccl": describe_nccl()} if is_loaded else {"mpi": None, "nccl": None}
    )
    found["driver"] = describe_driver()
    # Open MPI goes on with who built it, and where.
    return {
        name: None if one is None else str(one["version"]).partition(",")[0] for name, one in found.items()
    }


def peak_bytes() -> np.ndarray:
    """Measures the most memory that this process has held: on the host, and on its first GPU (0: none)."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    gpus = tf.config.list_logical_devices("GPU")
    return np.array([host, tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else 0], np.int64)


def _version_of(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """Gives the time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
