"""How a run lies on nodes: processes, cores, GPUs, memory, time, binding, environment. Pure functions.

=================  ====================================================================
strategy           processes on a node with G GPUs, R replicas in each
=================  ====================================================================
mirrored           1 (one node only), R = G
hybrid             G / R; without ``--replicas-per-process`` 1, with R = G
horovod, auto      G, R = 1; without GPUs 1
single             1 in all
=================  ====================================================================

``--np`` says the number of processes in all, where that is not what is wanted.

Synopsis::

    layout = lay_out(profile, command.job, command.train.settings, launcher="auto", default_partition=None)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology, choose_strategy
from hpcdl.common.words import RunSettings
from hpcdl.launch.amounts import memory_mb_of, minutes_of
from hpcdl.launch.sites.profile import Gpu, Profile, Queue, Site
from hpcdl.launch.submission.binding import rank_environ, srun_options
from hpcdl.launch.submission.queues import choose_gpus, choose_queue
from hpcdl.launch.submission.words import JobOptions

#: Gloo connects all pairs through one server, and gives up after 30 s: the table in docs/launching.md says how far a
#: core of an ordinary machine gets in half of that.
GLOO_MAX_RANKS = 128
_NAMES = {"gloo": "Gloo", "mpi": "MPI"}
#: Where no scheduler limits a job: a week.
_MINUTES_HERE = 7 * 24 * 60


@dataclass(frozen=True)
class Layout:
    """Where the processes of a job run and what they have.

    Attributes:
        num_nodes: Nodes.
        processes_per_node: Ranks on each.
        cores_per_process: Cores of each; None: what the machine has, divided (no scheduler).
        gpus_per_node: GPUs of each node.
        gpu_type: Slurm's name for them, where requests must name it.
        memory_mb: Memory of each node; None: all of it.
        time_limit_min: Minutes.
        partition: Slurm's.
        qos: Slurm's.
        constraint: Slurm's.
        whole_nodes: Whether to ask for exclusive nodes.
        strategy: The strategy, resolved.
        replicas_per_process: Model copies in each process.
        launcher: ``gloo`` (srun, Horovod meets through Gloo), ``mpi`` (srun, through MPI) or ``mpirun``.
        srun_options: How srun binds and connects the ranks.
        environ: What every rank finds in its environment.
        gpu_kind: The kind of GPU node, as the profile calls it.
        queue_name: The queue, as the profile calls it.
        launcher_why: Why that launcher, where it is not the one that is usual; "": it is.
    """

    num_nodes: int
    processes_per_node: int
    cores_per_process: Optional[int]
    gpus_per_node: int
    gpu_type: Optional[str]
    memory_mb: Optional[int]
    time_limit_min: int
    partition: Optional[str]
    qos: Optional[str]
    constraint: Optional[str]
    whole_nodes: bool
    strategy: str
    replicas_per_process: int
    launcher: str
    srun_options: Tuple[str, ...]
    environ: Mapping[str, str]
    gpu_kind: str = ""
    queue_name: str = ""
    launcher_why: str = ""

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.num_nodes * self.processes_per_node

    @property
    def stop_margin_s(self) -> int:
        """Seconds before the end at which Slurm warns the ranks: a tenth of the time, 15 s to 5 min."""
        return max(15, min(300, 6 * self.time_limit_min))


def lay_out(
    profile: Profile,
    job: JobOptions,
    settings: RunSettings,
    launcher: str = "auto",
    default_partition: Optional[str] = None,
    ways: Optional[Sequence[str]] = None,
) -> Layout:
    """Lays a run out at a site.

    Args:
        profile: The site.
        job: What the user asks of it.
        settings: The strategy and the replicas.
        launcher: ``auto``, ``gloo``, ``mpi`` or ``mpirun``.
        default_partition: The user's own default.
        ways: By which of ``gloo`` and ``mpi`` the Horovod of the image can meet; None: not known.

    Raises:
        BadInput: The site does not have or allow that, or neither says what must be known.
    """
    site = profile.site
    if site.scheduler == "none":
        return _lay_out_here(job, settings, launcher)
    choice = choose_queue(site, job, default_partition)
    queue = choice.queue
    kind, kind_name, num_gpus = choose_gpus(site, queue, job)
    processes = _processes_per_node(job, settings, num_gpus)
    strategy, replicas = _strategy(job, settings, processes, num_gpus)
    cores = _cores_per_process(site, queue, kind, job, processes, num_gpus)
    launched_by, why = _launcher(site, launcher, processes * job.nodes, ways)
    return Layout(
        num_nodes=job.nodes,
        processes_per_node=processes,
        cores_per_process=cores,
        gpus_per_node=num_gpus,
        gpu_type=kind.type if kind is not None else None,
        memory_mb=_memory_mb(site, queue, kind, job, num_gpus),
        time_limit_min=choice.time_limit_min,
        partition=job.partition or queue.partition,
        qos=job.qos or queue.qos,
        constraint=job.constraint or queue.constraint,
        whole_nodes=job.exclusive,
        strategy=strategy,
        replicas_per_process=replicas,
        launcher=launched_by,
        srun_options=srun_options(site, launched_by, processes, replicas, num_gpus),
        environ={
            **rank_environ(launched_by, cores, num_gpus),
            **_interfaces(site, launched_by),
            **site.environ,
        },
        gpu_kind=kind_name,
        queue_name=choice.name,
        launcher_why=why,
    )


def _lay_out_here(job: JobOptions, settings: RunSettings, launcher: str) -> Layout:
    if job.nodes != 1:
        raise BadInput(
            f"this machine is one node; received --nodes {job.nodes}; leave it out, or name the site with --site"
        )
    processes = job.np or 1
    strategy, replicas = _strategy(job, settings, processes, 0)
    return Layout(
        num_nodes=1,
        processes_per_node=processes,
        cores_per_process=None,
        gpus_per_node=0,
        gpu_type=None,
        memory_mb=None,
        time_limit_min=minutes_of(job.time) if job.time is not None else _MINUTES_HERE,
        partition=None,
        qos=None,
        constraint=None,
        whole_nodes=False,
        strategy=strategy,
        replicas_per_process=replicas,
        launcher="here",
        srun_options=(),
        environ={"HPCDL_CONTROLLER": "gloo" if launcher in ("auto", "gloo") else "mpi"},
    )


def _interfaces(site: Site, launched_by: str) -> Dict[str, str]:
    """Names the interfaces for NCCL, and for Gloo where hpcdl chooses one: Horovod reads one name only."""
    names = ("NCCL_SOCKET_IFNAME", *(["HOROVOD_GLOO_IFACE"] if launched_by == "gloo" else []))
    return {} if site.socket_ifname is None else {name: site.socket_ifname for name in names}


def _processes_per_node(job: JobOptions, settings: RunSettings, num_gpus: int) -> int:
    if job.np is not None:
        if job.np % job.nodes:
            raise BadInput(
                f"every node must have the same number of processes; received --np {job.np} on {job.nodes} nodes;"
                f" pass a multiple of {job.nodes}"
            )
        return job.np // job.nodes
    if settings.strategy == "single" and job.nodes > 1:
        raise BadInput(
            f"strategy single is one process; received {job.nodes} nodes; use --nodes 1, or horovod"
        )
    if settings.strategy == "mirrored" and job.nodes > 1:
        raise BadInput(f"strategy mirrored is one process; received {job.nodes} nodes; use --strategy hybrid")
    if settings.strategy in ("single", "mirrored") or num_gpus == 0:
        return 1
    replicas = settings.replicas_per_process or (num_gpus if settings.strategy == "hybrid" else 1)
    if num_gpus % replicas:
        raise BadInput(
            f"the replicas of a process must divide the GPUs of a node; received {replicas} replicas and {num_gpus}"
            " GPUs; pass another --replicas-per-process"
        )
    return num_gpus // replicas


def _strategy(job: JobOptions, settings: RunSettings, processes: int, num_gpus: int) -> Tuple[str, int]:
    world = Topology(0, processes * job.nodes, 0, processes, 0, job.nodes, "", "srun")
    kind = "GPU" if num_gpus else "CPU"
    choice = choose_strategy(settings.strategy, settings.replicas_per_process, world, num_gpus, kind)
    return choice.strategy, choice.replicas


def _cores_per_process(
    site: Site, queue: Queue, kind: Optional[Gpu], job: JobOptions, processes: int, num_gpus: int
) -> int:
    if job.cpus_per_task is not None:
        return job.cpus_per_task
    cores = queue.cores_per_node
    if kind is not None and kind.cores_per_gpu is not None and num_gpus:
        cores = kind.cores_per_gpu * num_gpus
    if cores is None:
        raise BadInput(
            f"a job must say its cores, and the profile of {site.title} does not know them; pass --cpus-per-task,"
            " or let `hpcdl site init` ask the cluster"
        )
    if cores < processes:
        raise BadInput(
            f"every process needs a core; received {processes} processes on {cores} cores of a node; pass a smaller"
            " --np"
        )
    return cores // processes


def _memory_mb(
    site: Site, queue: Queue, kind: Optional[Gpu], job: JobOptions, num_gpus: int
) -> Optional[int]:
    if job.mem is not None:
        asked = memory_mb_of(job.mem)
        if asked is not None:
            _check_memory(site, queue, kind, asked, job.mem)
        return asked
    if job.exclusive or queue.whole_nodes:
        return None
    if kind is not None and kind.memory_mb_per_gpu is not None and num_gpus:
        return kind.memory_mb_per_gpu * num_gpus
    if queue.memory_mb_per_node is not None:
        return queue.memory_mb_per_node
    raise BadInput(
        f"a job must say its memory, and the profile of {site.title} does not know it; pass e.g. --mem 60G for each"
        " node, or 0 for all of it"
    )


def _check_memory(site: Site, queue: Queue, kind: Optional[Gpu], asked_mb: int, text: str) -> None:
    """Holds a job to what a node has: one that takes some of its GPUs may take more than their share of the rest."""
    kind = kind or Gpu()
    has_mb = kind.memory_mb_per_node or queue.memory_mb_per_node
    said = f"{has_mb} MB of memory"
    if has_mb is None and kind.memory_mb_per_gpu is not None and kind.per_node is not None:
        has_mb = kind.per_node * kind.memory_mb_per_gpu
        said = f"{kind.per_node} GPUs x {kind.memory_mb_per_gpu} MB of memory"
    if has_mb is not None and asked_mb > has_mb:
        raise BadInput(
            f"a node of {queue.partition or queue.qos} has {said}; received --mem {text}; ask for less, or 0 for all of"
            f" it; where the profile of {site.title} is wrong, set memory_mb_per_node in your own file for the site"
        )


def _launcher(site: Site, launcher: str, world_size: int, ways: Optional[Sequence[str]]) -> Tuple[str, str]:
    """Chooses how ranks meet, and says why where the image leaves no choice."""
    if launcher == "mpi" and site.mpi is None:
        raise BadInput(
            f"--launcher mpi needs to know srun's --mpi, and the profile of {site.title} does not say it; pass"
            " --launcher gloo, or set mpi in your own file for the site (`srun --mpi=list` shows the choice)"
        )
    if launcher != "auto":
        return launcher, ""
    possible = ("gloo", "mpi") if site.mpi is not None else ("gloo",)
    usual = "mpi" if world_size > GLOO_MAX_RANKS and "mpi" in possible else "gloo"
    able = [way for way in possible if way in ways] if ways is not None else [usual]
    if able and usual not in able:
        return able[0], f"the image's Horovod has no {_NAMES[usual]}"
    return usual, ""
