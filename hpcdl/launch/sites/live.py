"""What a cluster says of itself: asked through sinfo, scontrol and srun, made a profile of, compared with one.

Synopsis::

    cluster = ask_cluster(run_text)                     # the process boundary is the argument
    own_path(name, config).write_text(profile_text(cluster, name, hostname, date))
    differences(profile.site, cluster)
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.launch.amounts import minutes_of
from hpcdl.launch.sites.profile import Site

_SINFO = ["sinfo", "-h", "-a", "-o", "%P|%c|%m|%G"]
_PARTITIONS = ["scontrol", "show", "partition", "-o"]
_CONFIG = ["scontrol", "show", "config"]
_MPI = ["srun", "--mpi=list"]
#: By these a user has Slurm's commands leave jobs out, write times in another way, or speak of another cluster.
_OF_THE_USER = re.compile(r"(SQUEUE|SINFO|SACCT|SSHARE|SCONTROL|SCANCEL)_\w+|SLURM_(CLUSTERS|TIME_FORMAT)")


class NodeKind(NamedTuple):
    """A kind of node: cores, memory in MB, GPUs by type."""

    cores: int
    memory_mb: int
    gpus: Tuple[Tuple[Optional[str], int], ...]

    @property
    def num_gpus(self) -> int:
        """GPUs of all types."""
        return sum(number for _, number in self.gpus)


@dataclass(frozen=True)
class Partition:
    """A partition as the cluster describes it. None: no limit, or nothing."""

    name: str
    is_default: bool
    max_min: Optional[int]
    default_min: Optional[int]
    min_nodes: Optional[int]
    max_nodes: Optional[int]
    whole_nodes: bool
    cores_per_node: Optional[int] = None
    memory_mb_per_node: Optional[int] = None
    nodes: Tuple[NodeKind, ...] = ()

    @property
    def gpus(self) -> Tuple[Tuple[Optional[str], int], ...]:
        """What kinds of GPUs its nodes have, by type and number."""
        return tuple(dict.fromkeys(gpu for kind in self.nodes for gpu in kind.gpus))


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of itself."""

    name: str
    slurm_version: str
    requeue: bool
    binds_cpus: bool
    mpi_types: Tuple[str, ...]
    mpi_default: str
    partitions: Mapping[str, Partition]
    container: Optional[str]


class Difference(NamedTuple):
    """A value of a profile beside what the cluster says."""

    path: str
    profile: Any
    cluster: Any


def asking_environ(environ: Mapping[str, str]) -> Dict[str, str]:
    """Leaves out the variables that change what Slurm's commands answer, or do."""
    return {name: value for name, value in environ.items() if not _OF_THE_USER.fullmatch(name)}


def run_text(argv: Sequence[str], timeout_s: float = 60, with_stderr: bool = True) -> str:
    """Runs a command of Slurm's and gives what it prints.

    Args:
        argv: The command.
        timeout_s: How long it may take.
        with_stderr: Whether what it prints to standard error counts too: old ones of srun answer there.

    Raises:
        BadInput: It is not there, fails, or does not answer in time.
    """
    stderr = subprocess.STDOUT if with_stderr else subprocess.DEVNULL
    try:
        done = subprocess.run(
            list(argv),
            env=asking_environ(os.environ),
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=timeout_s,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        trouble = " ".join(text.split())[:300] if done.returncode != 0 else None
    except FileNotFoundError as problem:
        raise BadInput(
            f"{argv[0]} is needed to ask the cluster; found none here; log in to the cluster"
        ) from problem
    except subprocess.TimeoutExpired:
        trouble = f"nothing in {timeout_s:g} s"
    except OSError as problem:
        trouble = str(problem.strerror)
    if trouble is not None:
        raise BadInput(f"the cluster does not answer `{' '.join(argv)}`: {trouble}")
    return text


def ask_cluster(
    run: Callable[[Sequence[str]], str] = run_text, which: Callable[[str], Optional[str]] = shutil.which
) -> Cluster:
    """Asks the cluster that this machine belongs to.

    Args:
        run: Runs a command and gives what it prints.
        which: Looks a name up on PATH.

    Raises:
        BadInput: There is no Slurm, or it does not answer.
    """
    config = parse_config(run(_CONFIG))
    partitions = parse_partitions(run(_PARTITIONS))
    nodes = parse_nodes(run(_SINFO))
    known = {name: _with_nodes(partition, nodes.get(name, [])) for name, partition in partitions.items()}
    return Cluster(
        name=config.get("ClusterName", "cluster"),
        slurm_version=config.get("SLURM_VERSION", ""),
        requeue=config.get("JobRequeue", "1") == "1",
        binds_cpus=any(word in config.get("TaskPlugin", "") for word in ("affinity", "cgroup")),
        mpi_types=parse_mpi_types(run(_MPI)),
        mpi_default=config.get("MpiDefault", "none"),
        partitions=known,
        container=next((name for name in ("apptainer", "singularity") if which(name)), None),
    )


def parse_config(text: str) -> Dict[str, str]:
    """Reads ``scontrol show config``."""
    return {
        name.strip(): value.strip()
        for name, found, value in (line.partition("=") for line in text.splitlines())
        if found
    }


def parse_partitions(text: str) -> Dict[str, Partition]:
    """Reads ``scontrol show partition -o``."""
    found = {}
    for line in text.splitlines():
        values = dict(word.partition("=")[::2] for word in line.split())
        if "PartitionName" in values:
            found[values["PartitionName"]] = Partition(
                name=values["PartitionName"],
                is_default=values.get("Default") == "YES",
                max_min=_minutes(values.get("MaxTime", "")),
                default_min=_minutes(values.get("DefaultTime", "")),
                min_nodes=_number(values.get("MinNodes", "")) or None,
                max_nodes=_number(values.get("MaxNodes", "")),
                whole_nodes=values.get("OverSubscribe") == "EXCLUSIVE",
            )
    return found


def parse_nodes(text: str) -> Dict[str, List[NodeKind]]:
    """Reads ``sinfo -o '%P|%c|%m|%G'``: for each partition its kinds of nodes."""
    found: Dict[str, List[NodeKind]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([^|*]+)\*?\|(\d+)\+?\|(\d+)\+?\|(.*)", line.strip())
        if match:
            name, cores, memory, gres = match.groups()
            found.setdefault(name, []).append(NodeKind(int(cores), int(memory), _gpus(gres)))
    return found


def parse_mpi_types(text: str) -> Tuple[str, ...]:
    """Reads ``srun --mpi=list``, whose form differs between versions."""
    words = re.findall(r"\b(pmix(?:_v\d+)?|pmi2|cray_shasta|none)\b", text)
    return tuple(dict.fromkeys(words))


def choose_mpi(types: Sequence[str], default: str) -> Optional[str]:
    """Chooses how ranks meet through MPI: the cluster's own default, else what today's Open MPI speaks."""
    if default in types and default != "none":
        return default
    return next((name for name in ("pmix", "pmi2") if name in types), None)


def differences(site: Site, cluster: Cluster) -> List[Difference]:
    """Compares the values of a profile that the cluster can tell."""
    found = [
        Difference("slurm_version", site.slurm_version, cluster.slurm_version),
        Difference("requeue", site.requeue, cluster.requeue),
    ]
    if site.mpi is not None and site.mpi not in cluster.mpi_types:
        found.append(Difference("mpi", site.mpi, f"one of {', '.join(cluster.mpi_types)}"))
    for name, queue in site.queues.items():
        if queue.partition is None:
            continue
        path = f"queues.{name}"
        live = cluster.partitions.get(queue.partition)
        if live is None:
            found.append(Difference(f"{path}.partition", queue.partition, "no such partition"))
            continue
        if queue.qos is None:  # the limits of a QOS are not those of its partition
            found += [
                Difference(f"{path}.{key}", getattr(queue, key), getattr(live, key))
                for key in ("max_min", "default_min", "max_nodes")
            ]
        for gpu in queue.gpus:
            kind = site.gpus[gpu]
            if kind.per_node is not None and live.gpus:
                numbers = sorted(
                    {n for type_, n in live.gpus if kind.type is None or type_ in (kind.type, None)}
                )
                seen = kind.per_node if kind.per_node in numbers else ", ".join(map(str, numbers)) or "none"
                found.append(Difference(f"gpus.{gpu}.per_node", kind.per_node, seen))
    return [one for one in found if one.profile is not None and one.profile != one.cluster]


def profile_text(cluster: Cluster, title: str, hostname: str, date: str) -> str:
    """Writes the profile of a cluster as a TOML file, each value with its source."""
    source = "cluster"
    lines = [f"title = {json.dumps(title)}"]

    def add(key: str, value: Any) -> None:
        if value is not None:
            lines.append(f"{key} = [{json.dumps(value)}, {json.dumps(source)}]")

    default = next((one.name for one in cluster.partitions.values() if one.is_default), None)
    for key, value in (
        ("scheduler", "slurm"),
        ("slurm_version", cluster.slurm_version or None),
        ("hosts", [hostname]),
        ("default_queue", default),
        ("gpu_request", "gpus-per-node"),
        ("gpu_bind", "none"),
        ("cpu_bind", "cores" if cluster.binds_cpus else "none"),
        ("mpi", choose_mpi(cluster.mpi_types, cluster.mpi_default)),
        ("requeue", cluster.requeue),
    ):
        add(key, value)
    lines += ["", f"[sources.{source}]", 'what = "the cluster itself, asked by hpcdl site init"']
    lines += [f"date = {json.dumps(date)}", 'status = "confirmed"']
    if cluster.container is not None:
        lines += ["", "[container]"]
        add("kind", cluster.container)
        add("gpu_flags", ["--nv"])
    kinds: Dict[str, Tuple[Optional[str], int]] = {}
    for partition in cluster.partitions.values():
        for type_, number in partition.gpus:
            kinds[_kind_name(type_, number)] = (type_, number)
    nodes = [kind for partition in cluster.partitions.values() for kind in partition.nodes]
    for name, gpu in kinds.items():
        # A job that takes some of a node's GPUs takes their share of the rest; of several kinds of nodes the least.
        having = [kind for kind in nodes if gpu in kind.gpus]
        lines += ["", f"[gpus.{json.dumps(name)}]"]
        add("type", gpu[0])
        add("per_node", gpu[1])
        add("cores_per_gpu", min(kind.cores // kind.num_gpus for kind in having) or None)
        add("memory_mb_per_gpu", min(kind.memory_mb // kind.num_gpus for kind in having) or None)
        # Which is no more than a default: a job may ask for what the largest of them has.
        add("memory_mb_per_node", max(kind.memory_mb for kind in having) or None)
    for partition in cluster.partitions.values():
        lines += ["", f"[queues.{json.dumps(partition.name)}]"]
        add("partition", partition.name)
        if partition.gpus:
            add("gpus", [_kind_name(*gpu) for gpu in partition.gpus])
        for key in (
            "min_nodes",
            "max_nodes",
            "max_min",
            "default_min",
            "cores_per_node",
            "memory_mb_per_node",
        ):
            add(key, getattr(partition, key))
        add("whole_nodes", partition.whole_nodes)
    return "\n".join(lines) + "\n"


def _with_nodes(partition: Partition, kinds: Sequence[NodeKind]) -> Partition:
    """Adds what its nodes have; of several kinds the least, which all of them have."""
    if not kinds:
        return partition
    return dataclasses.replace(
        partition,
        cores_per_node=min(kind.cores for kind in kinds),
        memory_mb_per_node=min(kind.memory_mb for kind in kinds),
        nodes=tuple(kinds),
    )


def _gpus(gres: str) -> Tuple[Tuple[Optional[str], int], ...]:
    """Reads ``gpu:v100:8(S:0-1),nvme:1``."""
    found = re.findall(r"\bgpu:(?:([^:,()]+):)?(\d+)", gres)
    return tuple((type_ or None, int(number)) for type_, number in found if int(number))


def _kind_name(type_: Optional[str], number: int) -> str:
    return f"{type_ or 'gpu'}-x{number}"


def _minutes(text: str) -> Optional[int]:
    try:
        return minutes_of(text)
    except BadInput:  # UNLIMITED, NONE, 00:00:00
        return None


def _number(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else None
