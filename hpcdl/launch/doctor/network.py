"""How fast the ranks add up, and by which way: beside what the site's is known to be, or what the hardware says.

Synopsis::

    findings = [*network_findings(seen, met, profile, layout)]
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.exchange_times import bus_bandwidth
from hpcdl.launch.doctor.nccl import nccl_finding
from hpcdl.launch.doctor.verdict import OK, WARNING, Finding
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.layout import Layout

#: As slow as through one gigabit: a fabric that is there is not used; and no node is so slow inside.
_SLOW_GB_PER_S = 0.1
#: Where the network itself is not much faster than that: this part of it.
_SLOW_PART = 0.05
#: GPUs of one node that add up more slowly than this do so through the memory of the host.
_SLOW_GPUS_GB_PER_S = 1.0
#: A small sum on a busy fabric reaches this part of what the profile expects.
_FAIR_PART = 0.5
#: An interface that is so many times faster than the one that was taken is worth a word.
_FASTER = 4
_USE_FABRIC = (
    "set socket_ifname in the profile to the fabric's interface; NCCL_DEBUG=INFO says which one NCCL takes"
)


def network_findings(
    seen: Sequence[Mapping[str, Any]],
    met: Sequence[Mapping[str, Any]],
    profile: Profile,
    layout: Layout,
) -> Iterator[Finding]:
    """Judges the way between ranks that have met.

    Args:
        seen: What each rank saw around it, by rank.
        met: What each rank found when Horovod had connected it, by rank.
        profile: The site.
        layout: What was asked for.
    """
    if layout.world_size < 2:
        return
    if layout.num_nodes > 1:
        yield from _interface(seen, met)
        if layout.gpus_per_node:
            yield nccl_finding(seen)
    yield _bandwidth(seen, met, profile, layout)


def _interface(seen: Sequence[Mapping[str, Any]], met: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Whether Gloo has taken a slow interface where the node has a fast one, by the speeds that the kernel tells."""
    for one, other in zip(seen, met):
        speeds: Dict[str, Optional[int]] = one["interfaces"]
        taken = other.get("interface")
        if taken not in speeds or not speeds[taken]:
            continue
        mbit, name = _fastest(speeds)
        evidence = f"Gloo takes {taken} of {one['hostname']}, with {speeds[taken]} Mbit/s"
        if mbit >= _FASTER * (speeds[taken] or 0):
            yield Finding(
                "interface",
                "nodes",
                WARNING,
                f"{evidence}, though {name} has {mbit}",
                f"set socket_ifname = '{name}' in your own file for the site",
            )
            return
    taken_ones = sorted({str(one["interface"]) for one in met if one.get("interface")})
    if taken_ones:
        yield Finding("interface", "nodes", OK, f"Gloo takes {', '.join(taken_ones)}")


def _bandwidth(
    seen: Sequence[Mapping[str, Any]],
    met: Sequence[Mapping[str, Any]],
    profile: Profile,
    layout: Layout,
) -> Finding:
    """The speed of a sum, by the bytes that each rank must send for it."""
    size, num_bytes = layout.world_size, met[0]["bytes"]
    speed = bus_bandwidth(num_bytes, size, max(one["seconds"] for one in met)) / 1e9
    device = "GPUs" if all(one["on_gpu"] for one in met) else "CPUs"
    nodes = f"{layout.num_nodes} nodes" if layout.num_nodes > 1 else "one node"
    evidence = f"sums at {speed:.2f} GB/s over {nodes} ({num_bytes // 2**20} MiB on {device})"
    if layout.num_nodes > 1:
        least, why, cure = _least_between(seen, profile)
    else:
        least, why, cure = _least_inside(device)
    if least is not None and speed < least:
        return Finding("bandwidth", "nodes", WARNING, f"{evidence}; {why}", cure)
    expected = profile.site.allreduce_gb_per_s if layout.num_nodes > 1 else None
    return Finding("bandwidth", "nodes", OK, evidence + (f"; {why}" if expected is not None else ""))


def _least_between(seen: Sequence[Mapping[str, Any]], profile: Profile) -> Tuple[Optional[float], str, str]:
    """Gives the least speed between nodes that is well, why, and what to do below it; None: nobody knows."""
    expected = profile.site.allreduce_gb_per_s
    if expected is not None:
        return _FAIR_PART * expected, f"the profile expects {expected:g}", _USE_FABRIC
    fabrics: List[str] = sorted({name for one in seen for name in one["fabrics"]})
    if fabrics:
        return _SLOW_GB_PER_S, f"though there is {', '.join(fabrics)}", _USE_FABRIC
    mbit, name = max(_fastest(one["interfaces"]) for one in seen)
    if not mbit:
        return None, "", ""
    least = min(_SLOW_GB_PER_S, _SLOW_PART * mbit / 8000)
    return least, f"though {name} has {mbit} Mbit/s", _USE_FABRIC


def _least_inside(device: str) -> Tuple[float, str, str]:
    """As `_least_between`, inside a node."""
    if device == "GPUs":
        return (
            _SLOW_GPUS_GB_PER_S,
            "GPUs of one node reach more, unless their sums go through the host's memory",
            "take an image whose Horovod has NCCL (the check horovod above says it); NCCL_DEBUG=INFO says whether it"
            " takes P2P, which gpu_bind other than 'none' prevents",
        )
    return (
        _SLOW_GB_PER_S,
        "a node reaches more inside, unless its ranks share cores",
        "look for what else runs there, and for the cores of each rank above",
    )


def _fastest(speeds: Mapping[str, Optional[int]]) -> Tuple[int, str]:
    return max(((mbit or 0, name) for name, mbit in speeds.items()), default=(0, ""))
