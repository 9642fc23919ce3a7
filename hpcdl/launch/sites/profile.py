"""The profile of a site: what is known of a centre's machine, value by value, and where each value is from.

What a profile does not say is unknown, and asked for where it is needed. `hpcdl.launch.sites.reading` makes profiles of
TOML files.

Synopsis::

    profile.site.queues["gpu"].max_min              # 2880
    profile.sources["queues.gpu.max_min"].status    # "confirmed"
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple

STATUSES = ("confirmed", "second-hand")
SCHEDULERS = ("slurm", "none")
GPU_REQUESTS = ("gpus-per-node", "gres", "gpus-per-task", "none")
CONTAINER_KINDS = ("singularity", "apptainer", "shifter", "podman-hpc", "none")


def _value(kind: str, help: str) -> Any:
    """Makes a field for one value: None, or () or {} for several, where the profile does not say it."""
    metadata = {"kind": kind, "help": help}
    if kind == "texts":
        return dataclasses.field(default=(), metadata=metadata)
    if kind == "table":
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=None, metadata=metadata)


@dataclass(frozen=True)
class Container:
    """How a site runs images."""

    kind: Optional[str] = _value("text", "singularity, apptainer, shifter, podman-hpc or none")
    command: Optional[str] = _value("text", "program that runs an image, if it is not named like the kind")
    gpu_flags: Tuple[str, ...] = _value("texts", "flags that give an image the GPUs")
    binds: Tuple[str, ...] = _value("texts", "folders that images need besides those of the run")
    images: Tuple[str, ...] = _value("texts", "patterns of the site's own images, the best first")
    python: Optional[str] = _value("text", "Python inside the image")
    cache: Optional[str] = _value("text", "folder for layers of images that are fetched, as a shell word")
    scratch: Optional[str] = _value("text", "folder to put images together in, as a shell word")


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU node."""

    per_node: Optional[int] = _value("whole", "GPUs of a node")
    cores_per_gpu: Optional[int] = _value("whole", "cores that belong to a GPU")
    memory_mb_per_gpu: Optional[int] = _value("whole", "memory that belongs to a GPU, in MB")
    memory_mb_per_node: Optional[int] = _value(
        "whole", "memory of a node with them, in MB, if not their shares"
    )
    charge: Optional[float] = _value("number", "units charged per GPU-hour or node-hour")
    type: Optional[str] = _value("text", "Slurm's name of the type, where requests must name it")


@dataclass(frozen=True)
class Queue:
    """Where a job can wait: a partition, a QOS or both, and what they allow."""

    partition: Optional[str] = _value("text", "Slurm's partition")
    qos: Optional[str] = _value("text", "Slurm's QOS")
    constraint: Optional[str] = _value("text", "Slurm's constraint")
    gpus: Tuple[str, ...] = _value("texts", "kinds of GPU nodes in it, the default first")
    min_nodes: Optional[int] = _value("whole", "nodes of a job, at least")
    max_nodes: Optional[int] = _value("whole", "nodes of a job, at most")
    max_gpus: Optional[int] = _value("whole", "GPUs of a job, at most")
    max_min: Optional[int] = _value("whole", "minutes of a job, at most")
    default_min: Optional[int] = _value("whole", "minutes of a job that does not ask for any")
    cores_per_node: Optional[int] = _value("whole", "cores of a node without GPUs")
    memory_mb_per_node: Optional[int] = _value("whole", "memory of a node, in MB")
    whole_nodes: Optional[bool] = _value("yes or no", "whether a job has its nodes for itself")
    preemption_grace_s: Optional[int] = _value("whole", "seconds between preemption's signal and the end")
    charge_factor: Optional[float] = _value("number", "what the charge is multiplied by here")
    job_chains: Optional[bool] = _value("yes or no", "whether jobs in it may depend on each other to go on")


@dataclass(frozen=True)
class Site:
    """A computing centre's machine. None: the profile does not say."""

    title: str
    scheduler: Optional[str] = _value("text", "slurm, or none for this machine itself")
    slurm_version: Optional[str] = _value("text", "version of Slurm")
    hosts: Tuple[str, ...] = _value("texts", "patterns of the login nodes' names")
    host_variables: Mapping[str, str] = _value("table", "variables by which its login nodes are known")
    account_required: Optional[bool] = _value("yes or no", "whether a job must name an account")
    account_suffix: Optional[str] = _value("text", "what the account of a GPU job ends with")
    default_queue: Optional[str] = _value("text", "the queue of a job that names none")
    gpu_request: Optional[str] = _value(
        "text", "how GPUs are asked for: gpus-per-node, gres, gpus-per-task (of srun alone) or none"
    )
    gpu_bind: Optional[str] = _value("text", "srun's --gpu-bind")
    cpu_bind: Optional[str] = _value("text", "srun's --cpu-bind")
    mpi: Optional[str] = _value("text", "srun's --mpi for ranks that meet through MPI")
    srun_args: Tuple[str, ...] = _value("texts", "further arguments of srun")
    sbatch_args: Tuple[str, ...] = _value("texts", "further arguments of sbatch, as --name=value")
    interactive: Optional[str] = _value("text", "what stands in for salloc, if the site has its own")
    requeue: Optional[bool] = _value("yes or no", "whether jobs may be requeued")
    job_chains: Optional[bool] = _value("yes or no", "whether jobs may depend on each other to go on")
    setup: Tuple[str, ...] = _value("texts", "shell lines before the run, such as module load")
    environ: Mapping[str, str] = _value("table", "variables that every rank gets")
    socket_ifname: Optional[str] = _value(
        "text", "network interfaces for NCCL and Gloo, e.g. ib0 or hsn0,hsn1"
    )
    allreduce_gb_per_s: Optional[float] = _value("number", "speed of a 16 MiB sum between nodes, in GB/s")
    scratch: Optional[str] = _value("text", "node-local scratch, as a shell word")
    scratch_flag: Optional[str] = _value("text", "what a job must ask for to have it")
    charge_unit: Optional[str] = _value("text", "the site's unit of account")
    charge_per: Optional[str] = _value("text", "gpu-hour or node-hour")
    internet: Optional[bool] = _value("yes or no", "whether compute nodes reach the internet")
    container: Container = dataclasses.field(default_factory=Container)
    gpus: Mapping[str, Gpu] = dataclasses.field(default_factory=dict)
    queues: Mapping[str, Queue] = dataclasses.field(default_factory=dict)

    def has_chains(self, queue_name: str) -> Optional[bool]:
        """Whether jobs of a queue ("": none that the profile knows) may depend on each other; None: nobody says."""
        of_queue = self.queues[queue_name].job_chains if queue_name else None
        return self.job_chains if of_queue is None else of_queue


@dataclass(frozen=True)
class Source:
    """Where a value is from."""

    what: str
    date: str
    status: str

    def describe(self) -> str:
        """Says it in a few words."""
        return f"{self.status}: {self.what}, {self.date}"


@dataclass(frozen=True)
class Profile:
    """A site with the source of each of its values, by dotted path."""

    name: str
    origin: str
    site: Site
    sources: Mapping[str, Source]

    def unconfirmed(self, prefixes: Sequence[str]) -> List[str]:
        """Lists the values under some paths that nobody has confirmed yet."""
        return [
            path
            for path, source in self.sources.items()
            if source.status != "confirmed"
            and any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)
        ]


def leaves(cls: Any) -> Iterator[dataclasses.Field[Any]]:
    """Gives the fields of a part of a profile that hold one value."""
    return (field for field in dataclasses.fields(cls) if "kind" in field.metadata)
