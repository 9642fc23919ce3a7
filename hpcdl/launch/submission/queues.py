"""Which queue of a site a job waits in, on which kind of GPU node, and whether it is allowed there. Pure functions.

Synopsis::

    choice = choose_queue(site, job, default_partition=None)
    kind, name, num_gpus = choose_gpus(site, choice.queue, job)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Optional, Tuple

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput
from hpcdl.common.saying import count
from hpcdl.launch.amounts import hours_of, minutes_of
from hpcdl.launch.sites.profile import Gpu, Queue, Site
from hpcdl.launch.submission.words import JobOptions


@dataclass(frozen=True)
class Choice:
    """A queue, its name in the profile ("" for one that the profile does not know), and the time limit there."""

    name: str
    queue: Queue
    time_limit_min: int


def choose_queue(site: Site, job: JobOptions, default_partition: Optional[str] = None) -> Choice:
    """Finds the queue that a job names, or the site's default, and holds the job to its limits.

    Where a partition has several queues in the profile (limits that grow with the nodes), the first that allows the
    nodes is taken.

    Args:
        site: Where.
        job: What the user asks for.
        default_partition: The user's own default.

    Raises:
        BadInput: There is no such queue, or it allows less than what is asked for.
    """
    partition = job.partition or (default_partition if job.qos is None else None)
    if not site.queues:
        time = _time_limit(job, Queue(), site)
        return Choice("", Queue(partition=partition, qos=job.qos), time)
    named = _matching(site, partition, job.qos)
    fitting = [
        name for name in named if _allows_nodes(site.queues[name], job.nodes)
    ] or named  # which then says what it allows
    queue = site.queues[fitting[0]]
    time = _time_limit(job, queue, site)
    _check_limits(fitting[0], queue, job.nodes, time, site)
    return Choice(fitting[0], queue, time)


def choose_gpus(site: Site, queue: Queue, job: JobOptions) -> Tuple[Optional[Gpu], str, int]:
    """Chooses the kind of GPU node and the number of GPUs on each.

    Returns:
        The kind (None: the profile knows none), its name ("" likewise), and the number.

    Raises:
        BadInput: The queue has no such GPUs, or not as many.
    """
    kind_name, number = _parse_gpus(job.gpus_per_node)
    kinds = {name: site.gpus[name] for name in queue.gpus}
    if not kinds:
        if kind_name:
            return Gpu(type=kind_name), kind_name, number or 0
        return None, "", number or 0
    candidates = [
        name
        for name, kind in kinds.items()
        if not kind_name or kind_name in (name, kind.type)
        if number is None or kind.per_node is None or number <= kind.per_node
    ]
    if not candidates:
        offers = ", ".join(f"{kind.type or name}:{kind.per_node or '?'}" for name, kind in kinds.items())
        hint = "" if kind_name in kinds else did_you_mean(kind_name, kinds, most=1)
        raise BadInput(
            f"--gpus-per-node must be what a node of {queue.partition or queue.qos} has; received"
            f" {job.gpus_per_node!r}; {hint}use one of {offers}"
        )
    name = candidates[0]
    kind = kinds[name]
    if number is None:
        if kind.per_node is None:
            raise BadInput(
                f"the profile of {site.title} does not say how many GPUs a node with {name} has; pass --gpus-per-node"
            )
        number = kind.per_node if queue.max_gpus is None else min(kind.per_node, queue.max_gpus)
    if queue.max_gpus is not None and number * job.nodes > queue.max_gpus:
        raise BadInput(
            f"{queue.partition or queue.qos} allows {queue.max_gpus} GPUs in a job; received"
            f" {count(job.nodes, 'node')} x {number}; pass fewer, or another --partition"
        )
    if queue.whole_nodes and kind.per_node is not None and 0 < number < kind.per_node:
        raise BadInput(
            f"{queue.partition or queue.qos} gives whole nodes only, of {kind.per_node} GPUs here; received {number};"
            " leave --gpus-per-node out, or choose a shared --partition"
        )
    return kind, name, number


def _matching(site: Site, partition: Optional[str], qos: Optional[str]) -> List[str]:
    if partition is None and qos is None:
        default = site.queues[site.default_queue] if site.default_queue else None
        if default is None:
            raise BadInput(
                f"a job must name a partition; received none; pass --partition: {', '.join(_partitions(site))}"
            )
        partition, qos = default.partition, default.qos
        return [name for name, q in site.queues.items() if (q.partition, q.qos) == (partition, qos)]
    rows = site.queues.items()
    if partition is not None and partition not in _partitions(site):
        raise _unknown("partition", partition, _partitions(site), site)
    of_partition = [name for name, q in rows if partition is None or q.partition == partition]
    if qos is None:
        # Rows with a QOS are for those who ask for it, unless the partition has no other.
        return [name for name in of_partition if site.queues[name].qos is None] or of_partition
    of_qos = [name for name in of_partition if site.queues[name].qos == qos]
    known = sorted({q.qos for _, q in rows if q.qos is not None})
    if not of_qos and known:
        raise _unknown("qos", qos, known, site)
    return of_qos or of_partition


def _partitions(site: Site) -> List[str]:
    return list(dict.fromkeys(q.partition for q in site.queues.values() if q.partition is not None))


def _unknown(what: str, value: str, known: List[str], site: Site) -> BadInput:
    hint = did_you_mean(value, known)
    names = f"use one of {', '.join(known)}" if known else f"{site.title} is not known to have any"
    return BadInput(f"unknown {what} {value!r} of {site.title}; {hint}{names}")


def _allows_nodes(queue: Queue, nodes: int) -> bool:
    return (queue.min_nodes or 1) <= nodes and (queue.max_nodes is None or nodes <= queue.max_nodes)


def _time_limit(job: JobOptions, queue: Queue, site: Site) -> int:
    if job.time is not None:
        return minutes_of(job.time)
    if queue.default_min is None:
        raise BadInput(
            f"a job must have a time limit, and the profile of {site.title} knows no default; pass e.g. --time 2:00:00"
        )
    return queue.default_min


def _check_limits(name: str, queue: Queue, nodes: int, time_limit_min: int, site: Site) -> None:
    where = f"{queue.partition or queue.qos or name} of {site.title}"
    if not _allows_nodes(queue, nodes):
        upper = "" if queue.max_nodes is None else f" to {queue.max_nodes}"
        lower = queue.min_nodes or 1
        raise BadInput(f"{where} takes jobs of {lower}{upper} nodes; received {nodes}; pass another --nodes")
    if queue.max_min is not None and time_limit_min > queue.max_min:
        raise BadInput(
            f"{where} allows {hours_of(queue.max_min)} h for {count(nodes, 'node')}; received"
            f" {hours_of(time_limit_min)} h; pass a shorter --time: the run goes on where it stopped"
        )


def _parse_gpus(text: Optional[str]) -> Tuple[str, Optional[int]]:
    """Reads ``TYPE:N`` or ``N``."""
    if text is None:
        return "", None
    match = re.fullmatch(r"(?:([\w.-]+):)?(\d+)", text)
    if match is None:
        raise BadInput(f"--gpus-per-node must be N or TYPE:N; received {text!r}; pass e.g. 4 or v100-32:8")
    return match.group(1) or "", int(match.group(2))
