"""What a layout means, in words: where processes run, what it costs, what the user should know. Pure functions.

Synopsis::

    print(describe(layout), cost(profile.site, layout))
"""

from __future__ import annotations

from typing import List, Optional

from hpcdl.launch.sites.profile import Gpu, Profile, Site
from hpcdl.launch.submission.job import Job
from hpcdl.launch.submission.layout import GLOO_MAX_RANKS, Layout


def plan_lines(job: Job, profile: Profile, how: str) -> List[str]:
    """Says what was decided, and how, before anything is done."""
    lines = [
        f"site         {profile.name} ({how})",
        f"layout       {describe(job.layout)}",
        f"image        {job.record['image'] or 'none: the environment'}",
        f"folder       {job.folder}",
    ]
    if job.executor == "slurm":
        memory = "all" if job.layout.memory_mb is None else f"{job.layout.memory_mb} MB"
        where = " ".join(
            f"{word} {value}"
            for word, value in (
                ("partition", job.layout.partition),
                ("qos", job.layout.qos),
                ("account", job.account),
            )
            if value
        )
        minutes = job.layout.time_limit_min
        again = f"up to {job.options.max_requeues} times" if job.requeue else "no"
        lines.append(
            f"job          {where or 'default partition'}, {minutes // 60}:{minutes % 60:02d} h,"
            f" memory of a node {memory}, requeue {again}"
        )
        price = cost(profile.site, job.layout)
        lines.append(f"cost         {price or 'the profile does not know the charge'}")
    lines += [f"note         {note}" for note in notes(profile, job.layout)]
    suffix = profile.site.account_suffix
    if suffix and job.account and job.layout.gpus_per_node and not job.account.endswith(suffix):
        lines.append(f"note         accounts for GPU jobs here end with {suffix}; received {job.account}")
    return lines


def describe(layout: Layout) -> str:
    """Says in a line where the processes run."""
    processes = _count(layout.processes_per_node, "process", "processes")
    nodes = _count(layout.num_nodes, "node", "nodes")
    parts = [f"{nodes} x {processes} x {_count(layout.replicas_per_process, 'replica', 'replicas')}"]
    if layout.cores_per_process is not None:
        parts.append(_count(layout.cores_per_process, "core", "cores") + " for each process")
    if layout.gpus_per_node:
        kind = f" {layout.gpu_kind}" if layout.gpu_kind else ""
        parts.append(_count(layout.gpus_per_node, f"GPU{kind}", f"GPUs{kind}") + " on each node")
    ways = {
        "gloo": "srun, Horovod through Gloo",
        "mpi": "srun, Horovod through MPI",
        "mpirun": "mpirun",
        "here": "this machine",
    }
    return ", ".join([f"{layout.strategy}: {parts[0]}", *parts[1:], ways[layout.launcher]])


def cost(site: Site, layout: Layout) -> Optional[str]:
    """Says what the job costs at most, in the site's own units; None if the profile does not say."""
    kind = site.gpus.get(layout.gpu_kind, Gpu())
    if site.charge_per is None or kind.charge is None:
        return None
    factor = kind.charge * (site.queues[layout.queue_name].charge_factor or 1 if layout.queue_name else 1)
    hours = layout.time_limit_min / 60
    unit = site.charge_unit or "units"
    if site.charge_per == "gpu-hour":
        number = layout.num_nodes * layout.gpus_per_node
        what = f"{number} GPUs x {hours:g} h x {factor:g} per GPU-hour"
    else:
        number, what = layout.num_nodes, f"{layout.num_nodes} nodes x {hours:g} h x {factor:g} per node-hour"
    return f"at most {number * hours * factor:g} {unit} ({what})"


def notes(profile: Profile, layout: Layout) -> List[str]:
    """Says what the user should know, a line each."""
    lines = []
    parts = [
        f"queues.{layout.queue_name}",
        f"gpus.{layout.gpu_kind}",
        "mpi",
        "gpu_request",
        "account_required",
    ]
    doubtful = profile.unconfirmed(parts)
    if doubtful:
        lines.append(
            f"not confirmed yet in the profile {profile.name}: {', '.join(doubtful)}"
            f" (hpcdl site verify {profile.name} compares them with the cluster)"
        )
    if layout.launcher == "gloo" and layout.world_size > GLOO_MAX_RANKS:
        lines.append(
            f"{layout.world_size} ranks meet slowly through Gloo; hybrid has fewer processes, --launcher mpi no limit"
        )
    idle = layout.gpus_per_node - layout.processes_per_node * layout.replicas_per_process
    if layout.gpus_per_node and idle > 0:
        lines.append(
            f"{idle} of {layout.gpus_per_node} GPUs on each node stay idle with strategy {layout.strategy}"
        )
    return lines


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
