"""Whether each rank of a job has GPUs of its own, and all of one kind. Pure functions over what the ranks saw.

Synopsis::

    findings = [*gpu_findings(seen, met, layout)]
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from hpcdl.common.topology import own_devices
from hpcdl.launch.doctor.verdict import FAILED, OK, WARNING, Finding
from hpcdl.launch.submission.layout import Layout

_SEE_ALL = "set gpu_bind = 'none' in your own file for the site: each rank picks its own by itself"


def gpu_findings(
    seen: Sequence[Mapping[str, Any]], met: Sequence[Mapping[str, Any]], layout: Layout
) -> Iterator[Finding]:
    """Judges the GPUs of the ranks.

    Args:
        seen: What each rank saw around it.
        met: What each rank found with TensorFlow; those that did not come so far, or were not to, are missing.
        layout: What was asked for.
    """
    if not layout.gpus_per_node:
        return
    kinds = sorted({gpu["name"] for one in seen for gpu in one["gpus"]})
    if len(kinds) > 1:
        yield _finding(
            "gpu kinds",
            WARNING,
            f"different GPUs in one job: {', '.join(kinds)}; all wait for the slowest",
            "name the type: --gpus-per-node TYPE:N, or --constraint",
        )
    counted = {one["rank"]: int(one["gpus"]) for one in met}
    yield _lacking(seen, counted, layout.replicas_per_process) or _shared(seen, counted, layout)


def _finding(check: str, status: str, evidence: str, cure: str = "") -> Finding:
    return Finding(check, "nodes", status, evidence, cure)


def _lacking(seen: Sequence[Mapping[str, Any]], counted: Mapping[int, int], needed: int) -> Optional[Finding]:
    """Finds the first rank that has too few GPUs, and what takes them away from it."""
    for one in seen:
        who = f"rank {one['rank']} on {one['hostname']}"
        for name, value in _limits(one).items():
            if len(_entries(value)) < needed:
                return _finding(
                    "gpus", FAILED, f"{who} has {name}='{value}', and needs {needed} GPUs", _SEE_ALL
                )
        count = counted.get(one["rank"], needed)
        if count < needed:
            lists = len(one["gpus"])
            return _finding(
                "gpus",
                FAILED,
                f"TensorFlow of {who} finds {count} GPUs, and needs {needed}; nvidia-smi lists {lists}",
                "take an image whose CUDA suits that driver and whose libraries are complete; the rank's log says what"
                " TensorFlow could not load"
                if lists >= needed
                else "look for what hides them: container.gpu_flags (--nv, --rocm) and gpu_bind in your own file for"
                " the site, and the type that --gpus-per-node asks for",
            )
    return None


def _shared(seen: Sequence[Mapping[str, Any]], counted: Mapping[int, int], layout: Layout) -> Finding:
    """Judges whether two ranks of a node would compute on one GPU."""
    takers: Dict[Any, List[int]] = {}
    is_known = True
    for one in seen:
        taken = _taken(one, counted.get(one["rank"]), layout.replicas_per_process)
        is_known = is_known and bool(taken)
        for gpu in taken:
            takers.setdefault((one["hostname"], gpu), []).append(one["rank"])
    for (host, gpu), ranks in takers.items():
        if len(ranks) > 1:
            return _finding(
                "gpus",
                FAILED,
                f"ranks {' and '.join(map(str, ranks))} on {host} would use one GPU, {gpu}",
                f"{_SEE_ALL}, and let nothing in setup, environ or srun_args set CUDA_VISIBLE_DEVICES for all alike",
            )
    few = min(counted.values()) if counted else None
    found = f"TensorFlow finds {few} or more in each rank" if few is not None else "not counted by TensorFlow"
    return _finding(
        "gpus", OK, f"{found}; " + ("no two ranks share one" if is_known else "which, nobody tells")
    )


def _taken(one: Mapping[str, Any], counted: Optional[int], replicas: int) -> List[str]:
    """Names the GPUs that a rank would use, as `hpcdl.runtime.devices` picks them; none where that is not known."""
    listed = [gpu["uuid"] for gpu in one["gpus"]]
    visible = listed
    for value in _limits(one).values():
        entries = _entries(value)
        visible = [gpu for entry in entries for gpu in _named(entry, listed)]
        if len(visible) != len(entries):
            return []
    if len(visible) < replicas or (counted is not None and counted != len(visible)):
        return []
    return [
        visible[index]
        for index in own_devices(len(visible), replicas, one["local_rank"])
        if index < len(visible)
    ]


def _limits(one: Mapping[str, Any]) -> Dict[str, str]:
    """Gives the variables that say which GPUs a rank may use: Slurm sets ROCm's for NVIDIA's GPUs, too."""
    given: Dict[str, str] = one["gpus_visible"]
    return {name: given[name] for name in given if name == "CUDA_VISIBLE_DEVICES" or not one["gpus"]}


def _named(entry: str, listed: Sequence[str]) -> List[str]:
    """Finds the GPU that an entry of CUDA_VISIBLE_DEVICES names: by its number, or by the begin of its UUID."""
    if entry.isdigit():
        return [listed[int(entry)]] if int(entry) < len(listed) else []
    return [gpu for gpu in listed if gpu.startswith(entry)]


def _entries(value: str) -> List[str]:
    """Lists the GPUs that a variable names; what follows -1 does not count."""
    entries: List[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if not entry or entry.startswith("-") or entry == "NoDevFiles":
            break
        entries.append(entry)
    return entries
