"""What a layout means, in words: where processes run, what it costs, what the user should know. Pure functions.

Synopsis::

    print(describe(layout), cost(profile.site, layout))
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.options import changed, flag
from hpcdl.common.saying import count
from hpcdl.common.words import target_kind
from hpcdl.launch.amounts import hours_of
from hpcdl.launch.sites.profile import Gpu, Profile, Site
from hpcdl.launch.submission.job import Job
from hpcdl.launch.submission.layout import GLOO_MAX_RANKS, Layout

#: Of sbatch's words those that are heeded where this machine runs the job.
_HEEDED_HERE = ("nodes", "np", "time", "job_name", "oversubscribe", "no_requeue", "max_requeues")
_OF_CONFIG = ("mail_user",)  # not typed


def plan_lines(job: Job, profile: Profile, how: str) -> List[str]:
    """Says what was decided, and how, before anything is done."""
    choice = job.record.get("image_choice")
    lines = [
        f"site         {profile.name} ({how})",
        f"layout       {describe(job.layout)}",
        f"image        {job.record['image'] or 'none: the environment'}" + (f" ({choice})" if choice else ""),
        f"folder       {job.folder}",
    ]
    if job.executor == "slurm":
        memory = "all" if job.layout.memory_mb is None else f"{job.layout.memory_mb} MB"
        names = (("partition", job.layout.partition), ("qos", job.layout.qos))
        where = [f"{word} {value}" if value else f"the default {word}" for word, value in names]
        where += [f"account {job.account}"] if job.account else []
        times = f"up to {job.options.max_requeues} times"
        again = f"requeue {times}" if job.requeue else f"{times} as a new job" if job.chain else "requeue no"
        lines.append(
            f"job          {', '.join(where)}, {hours_of(job.layout.time_limit_min)} h,"
            f" memory of a node {memory}, {again}"
        )
        lines.append(f"cost         {cost_or_hours(profile.site, job.layout)}")
    else:
        unheard = [flag(name) for name in changed(job.options) if name not in _HEEDED_HERE + _OF_CONFIG]
        if unheard:
            lines.append(f"note         there is no scheduler here to ask; left out: {', '.join(unheard)}")
    has_image = job.record["image"] is not None
    lines += [f"note         {note}" for note in notes(profile, job.layout, has_image)]
    if profile.site.internet is False and target_kind(job.record["target"]) == "workload":
        lines.append(
            "note         nodes have no internet here: the data must have been fetched (hpcdl data list)"
        )
    suffix = profile.site.account_suffix
    if suffix and job.account and job.layout.gpus_per_node and not job.account.endswith(suffix):
        lines.append(f"note         accounts for GPU jobs here end with {suffix}; received {job.account}")
    return lines


def describe(layout: Layout) -> str:
    """Says in a line where the processes run."""
    processes = count(layout.processes_per_node, "process", "processes")
    nodes = count(layout.num_nodes, "node")
    parts = [f"{nodes} x {processes} x {count(layout.replicas_per_process, 'replica')}"]
    if layout.cores_per_process is not None:
        parts.append(count(layout.cores_per_process, "core") + " for each process")
    if layout.gpus_per_node:
        kind = f" {layout.gpu_kind}" if layout.gpu_kind else ""
        parts.append(count(layout.gpus_per_node, f"GPU{kind}", f"GPUs{kind}") + " on each node")
    ways = {
        "gloo": "srun, Horovod through Gloo",
        "mpi": "srun, Horovod through MPI",
        "mpirun": "mpirun",
        "here": "this machine",
    }
    said = ", ".join([f"{layout.strategy}: {parts[0]}", *parts[1:], ways[layout.launcher]])
    return f"{said} ({layout.launcher_why})" if layout.launcher_why else said


def cost_or_hours(site: Site, layout: Layout) -> str:
    """Says what the job costs at most: as `cost`, or in hours if the profile does not say."""
    known = cost(site, layout)
    if known is not None:
        return known
    hours = layout.num_nodes * layout.time_limit_min / 60
    said = [f"{hours:g} node-hours"]
    if layout.gpus_per_node:
        said.append(f"{layout.gpus_per_node * hours:g} GPU-hours")
    return f"at most {', '.join(said)} (what the site charges for them the profile does not know)"


def cost(site: Site, layout: Layout) -> Optional[str]:
    """Says what the job costs at most, in the site's own units; None if the profile does not say."""
    kind = site.gpus.get(layout.gpu_kind, Gpu())
    if site.charge_per is None or kind.charge is None:
        return None
    of_queue = site.queues[layout.queue_name].charge_factor if layout.queue_name else None
    factor = kind.charge * (1 if of_queue is None else of_queue)
    hours = layout.time_limit_min / 60
    unit = site.charge_unit or "units"
    if site.charge_per == "gpu-hour":
        number = layout.num_nodes * layout.gpus_per_node
        what = f"{count(number, 'GPU')} x {hours:g} h x {factor:g} per GPU-hour"
    else:
        number = layout.num_nodes
        what = f"{count(number, 'node')} x {hours:g} h x {factor:g} per node-hour"
    return f"at most {number * hours * factor:g} {unit} ({what})"


def balance_line(
    layouts: Sequence[Layout], account: str, left: Mapping[str, float], what: str = "this job"
) -> Optional[str]:
    """Warns of jobs that may use more than their account has left; None if they fit, or nobody knows.

    Args:
        layouts: One of each job.
        account: Of all of them.
        left: Minutes that the account may still use, by Slurm's names of what.
        what: The jobs in a word.
    """
    each: Mapping[str, Tuple[str, Callable[[Layout], int]]] = {
        "gres/gpu": ("GPU-hours", lambda layout: layout.gpus_per_node),
        "node": ("node-hours", lambda layout: 1),
        "cpu": ("core-hours", lambda layout: layout.processes_per_node * (layout.cores_per_process or 0)),
    }
    for name, (unit, per_node) in each.items():
        wanted = sum(layout.num_nodes * per_node(layout) * layout.time_limit_min for layout in layouts)
        if wanted > left.get(name, wanted):
            return (
                f"{account} has {left[name] / 60:.1f} {unit} left, and {what} may use {wanted / 60:.1f}: Slurm may hold"
                " it; pass a shorter --time, fewer --nodes, or another --account"
            )
    return None


#: What every job at a site with a scheduler uses of the profile.
_ALWAYS = (
    "account_required",
    "requeue",
    "cpu_bind",
    "srun_args",
    "sbatch_args",
    "setup",
    "environ",
    "socket_ifname",
)

_OF_AN_IMAGE = tuple(
    f"container.{key}" for key in ("kind", "command", "gpu_flags", "binds", "images", "python")
)


def notes(profile: Profile, layout: Layout, has_image: bool) -> List[str]:
    """Says what the user should know, a line each."""
    lines = []
    parts = [
        *([f"queues.{layout.queue_name}"] if layout.queue_name else []),
        *([f"gpus.{layout.gpu_kind}", "gpu_request", "gpu_bind"] if layout.gpus_per_node else []),
        *(_OF_AN_IMAGE if has_image else []),
        *(["mpi"] if layout.launcher == "mpi" else []),
        *(_ALWAYS if layout.launcher != "here" else []),
    ]
    doubtful = profile.unconfirmed(parts)
    if doubtful:
        lines.append(
            f"not confirmed yet in the profile {profile.name}: {_by_table(doubtful)}"
            f" (hpcdl site verify {profile.name} compares some with the cluster)"
        )
    if profile.site.scratch_flag is not None:
        lines.append(
            f"for node-local scratch (HPCDL_SCRATCH) a job must ask here: {profile.site.scratch_flag}"
        )
    grace_s = profile.site.queues[layout.queue_name].preemption_grace_s if layout.queue_name else None
    if grace_s is not None:
        lines.append(
            f"this queue may end a job at any time, {grace_s} s after a warning: the run saves and goes on"
        )
    if layout.launcher in ("gloo", "mpi") and layout.world_size > GLOO_MAX_RANKS:
        lines.append(
            f"{layout.world_size} ranks are more than the {GLOO_MAX_RANKS} that Gloo surely connects in time;"
            f" {_beyond_gloo(layout, profile.site.mpi)}"
        )
    idle = layout.gpus_per_node - layout.processes_per_node * layout.replicas_per_process
    if layout.gpus_per_node and idle > 0:
        lines.append(
            f"{idle} of {layout.gpus_per_node} GPUs on each node stay idle with strategy {layout.strategy}"
        )
    return lines


def _beyond_gloo(layout: Layout, mpi: Optional[str]) -> str:
    if layout.launcher == "mpi":
        return (
            f"they meet through MPI: that of the image must speak srun's --mpi={mpi} (hpcdl doctor tries it)"
        )
    if layout.launcher_why:
        way = "an image whose Horovod has MPI"
    elif mpi is None:
        way = "name srun's --mpi as mpi in your own file for the site, and they meet through MPI"
    else:
        way = "leave --launcher gloo out, and they meet through MPI"
    return f"take fewer processes by --strategy hybrid, or {way}"


def _by_table(paths: Sequence[str]) -> str:
    """Lists values, those of one table together: ``queues.GPU: max_nodes, max_min; gpu_bind``."""
    tables: Dict[str, List[str]] = {}
    for path in paths:
        table, _, name = path.rpartition(".")
        tables.setdefault(table, []).append(name)
    return "; ".join(
        f"{table}: {', '.join(names)}" if table else ", ".join(names) for table, names in tables.items()
    )
