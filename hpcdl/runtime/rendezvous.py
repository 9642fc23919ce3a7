"""Horovod without MPI: how ranks find each other, so that its Gloo controller can connect them.

Horovod's Gloo needs an HTTP server through which the ranks exchange their addresses, and ``HOROVOD_*``
variables that say who is who and where that server is; ``horovodrun`` supplies both, over ssh. Here the ranks
do it, whoever started them, with nothing but a folder that all of them can see:

1. every rank announces itself in the folder: ``rank-0007.json``;
2. rank 0 waits for all, starts the rendezvous server and publishes ``plan.json``: its address, and
   the place of every rank;
3. every rank takes its variables from the plan. The server closes itself when all ranks are connected.

Synopsis, before Horovod is initialised::

    os.environ.update(gloo_environ(topology, os.environ["HPCDL_RENDEZVOUS_DIR"]))
    hvd.init()
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Union

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.topology import Topology
from hpcdl.runtime.interfaces import address_towards, interface_of, ipv4_interfaces
from hpcdl.runtime.rendezvous_server import serve

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
_SHOWN = 8

Announcement = Mapping[str, Any]


def gloo_environ(
    topology: Topology,
    folder: Union[str, Path],
    timeout_s: float = 300.0,
    interface: Optional[str] = None,
) -> Dict[str, str]:
    """Waits for all ranks and gives the variables that ``hvd.init()`` needs in this one. Every rank calls it.

    Args:
        topology: This rank's place.
        folder: Seen by all ranks, and used by no other start: not even by an earlier one of the same run.
        timeout_s: How long ranks wait for each other.
        interface: Network interface to use between nodes, such as ``ib0``; by default the one that leads from
            this node to rank 0's.

    Raises:
        HpcdlError: Ranks did not arrive in time; they are named.
        BadInput: The ranks are not numbered node by node, or there is no such interface.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    addresses = ipv4_interfaces()
    if interface is not None and interface not in addresses:
        raise BadInput(
            f"the network interface must exist and have an IPv4 address; received {interface!r} on"
            f" {topology.hostname}; choose one of {', '.join(addresses)}"
        )
    _write(folder / f"rank-{topology.rank:04d}.json", announcement(topology, addresses))
    deadline = time.monotonic() + timeout_s
    if topology.rank == 0:
        announcements = _await_all(folder, topology, deadline, timeout_s)
        ranks = plan_ranks(announcements)
        address = _server_address(announcements, addresses, interface)
        port = serve(address, topology.world_size, allowed=_addresses_of(announcements))
        plan: Dict[str, Any] = {"address": address, "port": port, "ranks": ranks}
        _write(folder / "plan.json", plan)
    else:
        plan = _await_plan(folder, topology, deadline, timeout_s)
    own_interface = interface or interface_of(address_towards(plan["address"]), addresses)
    return environ_of_rank(plan, topology.rank, own_interface)


def announcement(topology: Topology, addresses: Mapping[str, str]) -> Announcement:
    """What a rank tells the others."""
    return {
        "rank": topology.rank,
        "world_size": topology.world_size,
        "local_rank": topology.local_rank,
        "node_rank": topology.node_rank,
        "hostname": topology.hostname,
        "addresses": sorted(addresses.values()),
    }


def plan_ranks(announcements: Sequence[Announcement]) -> List[Dict[str, Any]]:
    """Gives every rank, in order, its place in Horovod's three communicators: global, local, cross.

    The cross communicator of a rank joins the ranks with its local rank on all nodes that have one.

    Raises:
        BadInput: Ranks are not numbered node by node, which Horovod takes for granted, or disagree on the
            world.
    """
    announcements = sorted(announcements, key=lambda one: int(one["rank"]))
    world_size = len(announcements)
    for one in announcements:
        if one["world_size"] != world_size:
            raise BadInput(
                f"all ranks must start together; rank {one['rank']} on {one['hostname']} believes in"
                f" a world of {one['world_size']}, {world_size} ranks announced themselves; use a new rendezvous"
                " folder for each start"
            )
    nodes: Dict[Any, List[int]] = {}
    for one in announcements:
        nodes.setdefault(_node(one), []).append(one["local_rank"])
    block_wise = [(node, i) for node, local_ranks in nodes.items() for i in range(len(local_ranks))]
    for one, (node, local_rank) in zip(announcements, block_wise):
        if (_node(one), one["local_rank"]) != (node, local_rank):
            raise BadInput(
                f"Horovod needs ranks that are numbered node by node; received rank {one['rank']} as local"
                f" rank {one['local_rank']} of node {_node(one)} instead of local rank {local_rank} of node"
                f" {node}; start them with srun --distribution=block or mpirun --map-by slot"
            )
    ranks = []
    for one in announcements:
        local_rank = one["local_rank"]
        cross = [node for node, local_ranks in nodes.items() if local_rank < len(local_ranks)]
        ranks.append(
            {
                # Horovod names the local communicator after the host: two nodes must not share a name.
                "hostname": f"{one['hostname']}-{list(nodes).index(_node(one))}",
                "rank": one["rank"],
                "size": world_size,
                "local_rank": local_rank,
                "local_size": len(nodes[_node(one)]),
                "cross_rank": cross.index(_node(one)),
                "cross_size": len(cross),
            }
        )
    return ranks


def environ_of_rank(plan: Mapping[str, Any], rank: int, interface: str) -> Dict[str, str]:
    """Writes a rank's part of the plan as Horovod's variables."""
    place = plan["ranks"][rank]
    return {
        **{"HOROVOD_" + name.upper(): str(value) for name, value in place.items()},
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": plan["address"],
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(plan["port"]),
        "HOROVOD_GLOO_IFACE": interface,
    }


def missing_text(announcements: Sequence[Announcement], topology: Topology, timeout_s: float) -> str:
    """Says which ranks did not come, and where they should be, judging from those that did."""
    hosts = {one["node_rank"]: one["hostname"] for one in announcements}
    present = {one["rank"] for one in announcements}
    missing = [rank for rank in range(topology.world_size) if rank not in present]
    places = []
    for rank in missing[:_SHOWN]:
        node = None if topology.num_nodes is None else rank * topology.num_nodes // topology.world_size
        host = hosts.get(node, "from which no rank came")
        places.append(f"rank {rank}" if node is None else f"rank {rank} (node {node}, {host})")
    more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return (
        f"{len(missing)} of {topology.world_size} ranks did not come within {timeout_s:g} s:"
        f" {', '.join(places)}{more}; see their logs"
    )


def _await_all(folder: Path, topology: Topology, deadline: float, timeout_s: float) -> List[Announcement]:
    while True:
        announcements = _announcements(folder)
        if len(announcements) >= topology.world_size:
            return announcements
        if time.monotonic() > deadline:
            raise HpcdlError(missing_text(announcements, topology, timeout_s))
        time.sleep(_POLL_S)


def _await_plan(folder: Path, topology: Topology, deadline: float, timeout_s: float) -> Any:
    path = folder / "plan.json"
    while not path.exists():
        if time.monotonic() > deadline:
            announcements = _announcements(folder)
            if len(announcements) < topology.world_size:
                raise HpcdlError(missing_text(announcements, topology, timeout_s))
            raise HpcdlError(f"rank 0 did not start its rendezvous within {timeout_s:g} s; see its log")
        time.sleep(_POLL_S)
    return json.loads(path.read_text(encoding="utf-8"))


def _node(one: Announcement) -> Any:
    """What tells a rank's node from others: its index, or its name where nodes have no number."""
    return one["hostname"] if one["node_rank"] is None else one["node_rank"]


def _announcements(folder: Path) -> List[Announcement]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("rank-*.json")]


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(str(temporary), str(path))


def _server_address(
    announcements: Sequence[Announcement], addresses: Mapping[str, str], interface: Optional[str]
) -> str:
    """Chooses the one address that the server listens on."""
    if interface is not None:
        return addresses[interface]
    rank_0 = next(one for one in announcements if one["rank"] == 0)
    elsewhere = [one for one in announcements if _node(one) != _node(rank_0)]
    if not elsewhere:
        return _LOOPBACK
    for address in elsewhere[0]["addresses"]:
        if not address.startswith("127."):
            return address_towards(address)
    raise HpcdlError("{} has no IPv4 address that other nodes could reach".format(elsewhere[0]["hostname"]))


def _addresses_of(announcements: Sequence[Announcement]) -> Set[str]:
    return {address for one in announcements for address in one["addresses"]} | {_LOOPBACK}
