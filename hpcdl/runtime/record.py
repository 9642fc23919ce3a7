"""What ``run.json`` says of a run.

Synopsis::

    record = new_record(plan, model, seed, topology, identity)
    record.update(status="done", ended=now())
"""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from typing import Any, Dict, Mapping, Optional

import tensorflow as tf

import hpcdl
from hpcdl.common.plan import Plan
from hpcdl.common.records import SCHEMA_VERSION
from hpcdl.common.topology import Topology


def new_record(
    plan: Plan, model: Any, seed: int, topology: Topology, identity: Mapping[str, Any]
) -> Dict[str, Any]:
    """Describes a run that begins: status ``running``."""
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
            "optimizer": type(model.optimizer).__name__,
            "num_parameters": model.count_params(),
        },
        "versions": versions(),
        "host_load_at_start": os.getloadavg()[0],
    }


def versions() -> Dict[str, Optional[str]]:
    """Lists the versions of what a run computes with; None: not there, or not known."""
    return {
        "hpcdl": hpcdl.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        **{name: _version_of(name) for name in ("keras", "numpy", "horovod")},
    }


def _version_of(name: str) -> Optional[str]:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    """Gives the time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
