"""Whether each rank of a job has its cores to itself, and no more threads than cores. Pure functions.

Synopsis::

    findings = [*core_findings(seen, layout)]
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from hpcdl.common.cores import format_cpu_list, parse_cpu_list
from hpcdl.common.saying import count
from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding
from hpcdl.launch.submission.layout import Layout


def core_findings(seen: Sequence[Mapping[str, Any]], layout: Layout) -> Iterator[Finding]:
    """Judges the cores of the ranks, and their threads where the cores are as asked for.

    Args:
        seen: What each rank saw around it.
        layout: What was asked for.
    """
    wanted = layout.cores_per_process or 1
    ill = _short(seen, wanted) or _crowded(seen, wanted)
    if ill is not None:
        yield ill
        return
    least = min(one["cores"] for one in seen)
    yield Finding("cores", "nodes", OK, f"{least} or more for each rank; asked for {wanted}")
    yield _threads(seen)


def _short(seen: Sequence[Mapping[str, Any]], wanted: int) -> Optional[Finding]:
    short = [one for one in seen if one["cores"] < wanted]
    if not short:
        return None
    return Finding(
        "cores",
        "nodes",
        FAILED,
        f"{_who(short[0])} may use {short[0]['cores']} of the {wanted} cores it asked for ({len(short)} ranks like it)",
        f"look for what binds it: srun_args, cpu_bind and container.command in the profile; srun needs"
        f" --cpus-per-task={wanted}",
    )


def _crowded(seen: Sequence[Mapping[str, Any]], wanted: int) -> Optional[Finding]:
    """Finds a node whose ranks have fewer cores together than they asked for: they are bound to the same ones."""
    ranks: Dict[str, int] = {}
    cpus: Dict[str, Set[int]] = {}
    for one in seen:
        ranks[one["hostname"]] = ranks.get(one["hostname"], 0) + 1
        cpus.setdefault(one["hostname"], set()).update(parse_cpu_list(one["cpus"]))
    for host, number in ranks.items():
        shared = cpus[host]
        if len(shared) < number * wanted:
            cores = f"{count(len(shared), 'core')} ({format_cpu_list(shared)})"
            return Finding(
                "cores",
                "nodes",
                FAILED,
                f"{number} ranks on {host} share {cores}, and asked for {wanted} each",
                "look for what binds all to the same cores: cpu_bind (a mask or a list?), srun_args and"
                " container.command in the profile, taskset in setup",
            )
    return None


def _threads(seen: Sequence[Mapping[str, Any]]) -> Finding:
    many = [
        (one, name) for one in seen for name, value in one["threads"].items() if _number(value) > one["cores"]
    ]
    if many:
        one, name = many[0]
        number = len({other["rank"] for other, _ in many})
        return Finding(
            "threads",
            "nodes",
            WARNING,
            f"{_who(one)} has {one['cores']} cores and {name}={one['threads'][name]}"
            f" ({count(number, 'rank')} like it)",
            f"let neither environ in the profile nor the image set {name}: hpcdl sets it to the cores of a rank",
        )
    told: List[str] = [f"{name}={value}" for name, value in seen[0]["threads"].items()]
    return Finding("threads", "nodes", OK, ", ".join(told) or "not limited: as many as a rank has cores")


def _who(one: Mapping[str, Any]) -> str:
    return f"rank {one['rank']} on {one['hostname']}"


def _number(value: str) -> int:
    """Reads a number of threads; OMP_NUM_THREADS may be a list, of which the first counts."""
    first = value.partition(",")[0].strip()
    return int(first) if first.isdigit() else 0
