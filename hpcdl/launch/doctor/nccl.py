"""Which network NCCL would take between nodes, as far as its variables and the kernel tell. Pure functions.

Synopsis::

    finding = nccl_finding(seen)
"""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence

from hpcdl.launch.doctor.verdict import OK, WARNING, Finding


def nccl_finding(seen: Sequence[Mapping[str, Any]]) -> Finding:
    """Judges what NCCL is told and finds; what it takes it says itself, only in its log.

    Args:
        seen: What each rank saw around it, by rank.
    """
    for one in seen:
        told, verbs = one["nccl"], _verbs(one)
        name = next((name for name in ("NCCL_IB_DISABLE", "NCCL_NET") if _is_without_verbs(name, told)), None)
        if verbs and name is not None:
            return Finding(
                "nccl",
                "nodes",
                WARNING,
                f"NCCL is told {name}={told[name]}, though there is {', '.join(verbs)} on {one['hostname']}",
                f"let nothing in setup, environ or the image set {name}",
            )
        if not _sockets(one):
            return Finding(
                "nccl",
                "nodes",
                WARNING,
                f"NCCL_SOCKET_IFNAME={told['NCCL_SOCKET_IFNAME']} names none of {', '.join(one['interfaces'])} on"
                f" {one['hostname']}, over which NCCL meets",
                "set socket_ifname in your own file for the site to one of them",
            )
    told, verbs, sockets = seen[0]["nccl"], _verbs(seen[0]), ", ".join(_sockets(seen[0]))
    others = [name for name in seen[0]["fabrics"] if name not in verbs]
    if told.get("NCCL_NET", "Socket").lower() != "socket":
        way = "NCCL is told its network"
    elif verbs:
        way = f"NCCL would take {', '.join(verbs)}"
    else:
        way = f"NCCL finds no InfiniBand here, and would take sockets over {sockets}"
        way += f", unless the image has a plugin for {', '.join(others)}" if others else ""
    variables = "".join(f"; {name}={value}" for name, value in told.items())
    return Finding("nccl", "nodes", OK, f"{way}{variables} (NCCL_DEBUG=INFO tells for sure)")


def _is_without_verbs(name: str, told: Mapping[str, str]) -> bool:
    value = told.get(name, "")
    return value not in ("", "0") if name == "NCCL_IB_DISABLE" else value.lower() == "socket"


def _verbs(one: Mapping[str, Any]) -> List[str]:
    """Gives the devices that NCCL itself can use: those of InfiniBand and RoCE, not of Slingshot."""
    return [name for name in one["fabrics"] if not name.startswith("hsn")]


def _sockets(one: Mapping[str, Any]) -> List[str]:
    """Gives the interfaces that NCCL may use, by the rules of NCCL_SOCKET_IFNAME; all, where it is not set."""
    names: List[str] = list(one["interfaces"])
    asked = one["nccl"].get("NCCL_SOCKET_IFNAME")
    if not asked or not names:
        return names or ["an interface without an IPv4 address"]
    listed = asked[1:] if asked.startswith("^") else asked
    is_exact = listed.startswith("=")
    wanted = [part.strip() for part in listed.lstrip("=").split(",") if part.strip()]
    named = [name for name in names if name in wanted or (not is_exact and name.startswith(tuple(wanted)))]
    return [name for name in names if name not in named] if asked.startswith("^") else named
