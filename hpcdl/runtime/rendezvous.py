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
import time
from collections import Counter
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Union

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.files import replace_text
from hpcdl.common.interfaces import address_towards, first_present, interface_of, ipv4_interfaces
from hpcdl.common.launchers import expand_node_names
from hpcdl.common.topology import Topology
from hpcdl.runtime.rendezvous_server import Store, serve

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
_SHOWN = 8

Announcement = Mapping[str, Any]


def meets_by_gloo(topology: Topology, controller: Optional[str], environ: Mapping[str, str]) -> bool:
    """Says whether Gloo connects the ranks, and not MPI.

    Args:
        topology: The place of this process.
        controller: ``mpi`` or ``gloo``, if the user or the launcher said so. None: Gloo where there is a folder to
            meet in, where no MPI has started the ranks, and where horovodrun chose it.
        environ: Of this process.
    """
    if controller is not None:
        return controller == "gloo"
    has_folder = bool(environ.get("HPCDL_RENDEZVOUS_DIR"))
    return has_folder or topology.launcher == "hpcdl" or environ.get("HOROVOD_CONTROLLER") == "gloo"


def gloo_environ(
    topology: Topology,
    folder: Union[str, Path],
    timeout_s: float = 300.0,
    interfaces: Optional[str] = None,
) -> Dict[str, str]:
    """Waits for all ranks and gives the variables that ``hvd.init()`` needs in this one. Every rank calls it.

    Args:
        topology: This rank's place.
        folder: Seen by all ranks, and used by no other start: not even by an earlier one of the same run.
        timeout_s: How long ranks wait for each other.
        interfaces: Names of network interfaces, such as ``hsn0,hsn1`` or ``ib``: the first that this node has is used.
            None: the one that leads from this node to rank 0's.

    Raises:
        HpcdlError: Ranks did not arrive in time; they are named.
        BadInput: The ranks are not numbered node by node, or there is none of these interfaces.
    """
    folder = Path(folder)
    addresses = ipv4_interfaces()
    interface = first_present(interfaces, addresses) if interfaces else None
    if interfaces and interface is None:
        raise BadInput(
            f"the network interface must exist and have an IPv4 address; received {interfaces!r} on"
            f" {topology.hostname}; choose one of {', '.join(addresses)}"
        )
    deadline = time.monotonic() + timeout_s
    _announce(folder, topology, addresses)
    if topology.rank == 0:
        announcements = _await_all(folder, topology, deadline, timeout_s)
        ranks = plan_ranks(announcements)
        address = str(addresses[interface].ip) if interface is not None else server_address(announcements)
        port = serve(address, Store(ranks), allowed=_addresses_of(announcements))
        plan: Dict[str, Any] = {"address": address, "port": port, "ranks": ranks}
        replace_text(folder / "plan.json", json.dumps(plan))
    else:
        plan = _await_rank_0(folder / "plan.json", topology, deadline, timeout_s)
    own_interface = interface or interface_of(address_towards(plan["address"]), addresses)
    return environ_of_rank(plan, topology.rank, own_interface)


def await_ranks(topology: Topology, folder: Union[str, Path], timeout_s: float = 300.0) -> None:
    """Waits for all ranks where MPI connects them: it would wait for one that does not come for ever, and say nothing.

    Args:
        topology: This rank's place.
        folder: As for `gloo_environ`.
        timeout_s: How long ranks wait for each other.

    Raises:
        HpcdlError: Ranks did not arrive in time; they are named.
    """
    folder = Path(folder)
    deadline = time.monotonic() + timeout_s
    _announce(folder, topology, {})
    if topology.rank == 0:
        _await_all(folder, topology, deadline, timeout_s)
        replace_text(folder / "all.json", json.dumps({}))
    else:
        _await_rank_0(folder / "all.json", topology, deadline, timeout_s)


def announcement(topology: Topology, addresses: Mapping[str, IPv4Interface]) -> Announcement:
    """What a rank tells the others."""
    return {
        "rank": topology.rank,
        "world_size": topology.world_size,
        "local_rank": topology.local_rank,
        "node_rank": topology.node_rank,
        "hostname": topology.hostname,
        "addresses": [own.with_prefixlen for own in addresses.values()],
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
    hosts: Dict[Optional[int], str] = dict(enumerate(expand_node_names(topology.node_list)))
    hosts.update((one["node_rank"], one["hostname"]) for one in announcements)
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


def _announce(folder: Path, topology: Topology, addresses: Mapping[str, IPv4Interface]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / f"rank-{topology.rank:04d}.json", json.dumps(announcement(topology, addresses)))


def _await_all(folder: Path, topology: Topology, deadline: float, timeout_s: float) -> List[Announcement]:
    while len(_announced(folder)) < topology.world_size:
        if time.monotonic() > deadline:
            raise HpcdlError(missing_text(_announcements(folder), topology, timeout_s))
        time.sleep(_POLL_S)
    return _announcements(folder)


def _await_rank_0(path: Path, topology: Topology, deadline: float, timeout_s: float) -> Any:
    """Reads what rank 0 writes when all are there."""
    while not path.exists():
        if time.monotonic() > deadline:
            announcements = _announcements(path.parent)
            if len(announcements) < topology.world_size:
                raise HpcdlError(missing_text(announcements, topology, timeout_s))
            raise HpcdlError(f"rank 0 did not go on when all were there, within {timeout_s:g} s; see its log")
        time.sleep(_POLL_S)
    return json.loads(path.read_text(encoding="utf-8"))


def _node(one: Announcement) -> Any:
    """What tells a rank's node from others: its index, or its name where nodes have no number."""
    return one["hostname"] if one["node_rank"] is None else one["node_rank"]


def _announcements(folder: Path) -> List[Announcement]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in _announced(folder)]


def _announced(folder: Path) -> List[Path]:
    return list(folder.glob("rank-*.json"))


def server_address(announcements: Sequence[Announcement]) -> str:
    """Chooses the one address of rank 0's node that the server listens on.

    That is an address in a network that all nodes are in. What several nodes announce alike, such as the address of a
    bridge for containers, leads nowhere. Where no network is shared, the way to another node's first address decides.
    """
    nodes = {_node(one): [IPv4Interface(text) for text in one["addresses"]] for one in announcements}
    first = nodes.pop(_node(next(one for one in announcements if one["rank"] == 0)))
    others = [own for own in nodes.values() if own != first]
    if not others:  # one machine, whatever it is called
        return _LOOPBACK
    everyones = Counter(address.ip for own in (first, *others) for address in set(own))
    for address in first:
        if everyones[address.ip] == 1 and all(
            any(address.network == other.network for other in own) for own in others
        ):
            return str(address.ip)
    for address in others[0]:
        if everyones[address.ip] == 1:
            return address_towards(str(address.ip))
    host = next(one["hostname"] for one in announcements if _node(one) in nodes)
    raise HpcdlError(f"{host} has no IPv4 address that other nodes could reach")


def _addresses_of(announcements: Sequence[Announcement]) -> Set[str]:
    announced = (IPv4Interface(text) for one in announcements for text in one["addresses"])
    return {str(address.ip) for address in announced} | {_LOOPBACK}
