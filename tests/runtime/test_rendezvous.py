"""Ranks that no MPI launcher connects find each other: on one node, on several, and with one missing."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.interfaces import address_towards, first_present, interface_of, ipv4_interfaces
from hpcdl.common.topology import Topology
from hpcdl.runtime.rendezvous import environ_of_rank, gloo_environ, missing_text, plan_ranks, server_address
from hpcdl.runtime.rendezvous_server import Store, expected_paths, serve

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = {"lo": IPv4Interface("127.0.0.1/8")}


def world(ranks_of_nodes: Sequence[int]) -> List[Topology]:
    """Makes the ranks of nodes with so many ranks each, numbered node by node."""
    places = [(node, local) for node, count in enumerate(ranks_of_nodes) for local in range(count)]
    return [
        Topology(
            rank=rank,
            world_size=len(places),
            local_rank=local,
            local_world_size=ranks_of_nodes[node],
            node_rank=node,
            num_nodes=len(ranks_of_nodes),
            hostname=f"n{node}",
            launcher="hpcdl",
        )
        for rank, (node, local) in enumerate(places)
    ]


def announced(topology: Topology, **changes: Any) -> Dict[str, Any]:
    names = ("rank", "world_size", "local_rank", "node_rank", "hostname")
    return {**{name: getattr(topology, name) for name in names}, "addresses": ["127.0.0.1/8"], **changes}


def test_the_plan_of_unequal_nodes_is_the_one_that_horovod_makes_itself() -> None:
    hosts = pytest.importorskip("horovod.runner.common.util.hosts")
    ranks_of_nodes = [3, 1, 2]
    infos = [hosts.HostInfo(f"n{node}-{node}", count) for node, count in enumerate(ranks_of_nodes)]
    expected = [vars(slot) for slot in hosts.get_host_assignments(infos, sum(ranks_of_nodes))]
    announcements = [announced(topology) for topology in world(ranks_of_nodes)]
    random.Random(0).shuffle(announcements)
    assert plan_ranks(announcements) == expected


def test_nodes_without_a_number_are_told_apart_by_their_names() -> None:
    ranks = plan_ranks([announced(topology, node_rank=None) for topology in world([2, 1])])
    assert [(rank["local_size"], rank["cross_rank"], rank["cross_size"]) for rank in ranks] == [
        (2, 0, 2),
        (2, 0, 1),
        (1, 1, 2),
    ]


def test_two_nodes_of_one_name_do_not_share_a_local_communicator() -> None:
    ranks = plan_ranks([announced(topology, hostname="localhost") for topology in world([1, 1])])
    assert ranks[0]["hostname"] != ranks[1]["hostname"]


def test_ranks_that_are_dealt_out_to_the_nodes_in_turn_are_refused_with_the_cure() -> None:
    cyclic = [
        announced(world([2, 2])[0], rank=rank, local_rank=rank // 2, node_rank=rank % 2) for rank in range(4)
    ]
    with pytest.raises(BadInput, match=r"rank 1 as local rank 0 of node 1 .*--distribution=block"):
        plan_ranks(cyclic)


def test_ranks_of_another_start_in_the_same_folder_are_refused() -> None:
    with pytest.raises(BadInput, match=r"rank 1 on n0 believes in a world of 4, 2 ranks announced"):
        plan_ranks([announced(world([2])[0]), announced(world([2])[1], world_size=4)])


def test_a_rank_gets_the_variables_that_horovod_reads() -> None:
    plan = {"address": "10.0.0.1", "port": 4711, "ranks": plan_ranks([announced(t) for t in world([1, 1])])}
    assert environ_of_rank(plan, 1, "ib0") == {
        "HOROVOD_HOSTNAME": "n1-1",
        "HOROVOD_RANK": "1",
        "HOROVOD_SIZE": "2",
        "HOROVOD_LOCAL_RANK": "0",
        "HOROVOD_LOCAL_SIZE": "1",
        "HOROVOD_CROSS_RANK": "1",
        "HOROVOD_CROSS_SIZE": "2",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "4711",
        "HOROVOD_GLOO_IFACE": "ib0",
    }


@pytest.mark.parametrize("waiting", [0, 1])
def test_ranks_that_do_not_come_are_named_with_their_hosts(tmp_path: Path, waiting: int) -> None:
    ranks = world([2, 2])
    present = [rank for rank in (0, 1, 2) if rank != 1 - waiting]

    def come(rank: int) -> Optional[str]:
        try:
            gloo_environ(ranks[rank], tmp_path, timeout_s=0.5)
        except HpcdlError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        said = dict(zip(present, pool.map(come, present)))
    assert said[waiting] is not None
    assert said[waiting].startswith("2 of 4 ranks did not come within 0.5 s: ")
    assert f"rank {1 - waiting} (node 0, n0)" in said[waiting]
    assert "rank 3 (node 1, n1)" in said[waiting]


def test_of_many_missing_ranks_a_few_are_named() -> None:
    ranks = world([64, 64])
    text = missing_text([announced(ranks[0])], ranks[0], 300)
    assert text.startswith("127 of 128 ranks did not come within 300 s: rank 1 (node 0, n0), ")
    assert ", and 119 more" in text
    assert len(text) < 400


def test_a_node_from_which_no_rank_came_has_the_name_that_slurm_gave_it() -> None:
    ranks = [dataclasses.replace(rank, node_list="v[005-006]") for rank in world([2, 2])]
    text = missing_text([announced(ranks[0]), announced(ranks[1])], ranks[0], 300)
    assert text.endswith("rank 2 (node 1, v006), rank 3 (node 1, v006); see their logs")


def test_a_wrong_interface_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"received 'ib7' on n0; choose one of .*lo"):
        gloo_environ(world([2])[0], tmp_path, interfaces="ib7")
    assert list(tmp_path.iterdir()) == []


def test_the_interfaces_of_this_machine_are_found() -> None:
    addresses = ipv4_interfaces()
    assert addresses["lo"] == IPv4Interface("127.0.0.1/8")
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert interface_of("127.0.0.1", addresses) == "lo"
    with pytest.raises(HpcdlError, match=r"no interface has the address 10\.9\.8\.7"):
        interface_of("10.9.8.7", LOOPBACK)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("ib0", "ib0"),
        ("hsn0,hsn1,ib0", "ib0"),
        ("hsn, eth", "eth0"),
        ("eth1", "eth1"),
        ("hsn0", None),
        (",", None),
    ],
)
def test_of_a_list_of_interfaces_the_first_that_is_there_is_taken(
    names: str, expected: Optional[str]
) -> None:
    there = {name: IPv4Interface("10.0.0.1/8") for name in ("lo", "eth0", "eth10", "eth1", "ib0")}
    assert first_present(names, there) == expected


BRIDGE = "172.17.0.1/16"  # of containers: each node has the same


@pytest.mark.parametrize(
    ("of_nodes", "expected"),
    [
        (
            [["127.0.0.1/8", BRIDGE, "192.168.3.1/24"], ["127.0.0.1/8", BRIDGE, "192.168.3.2/24"]],
            "192.168.3.1",
        ),
        # One network leads to the next node only, another to all.
        ([["10.1.0.1/30", "10.9.0.1/16"], ["10.1.0.2/30", "10.9.0.2/16"], ["10.9.0.3/16"]], "10.9.0.1"),
        ([[BRIDGE, "10.9.0.1/16"], ["10.9.0.2/16"]], "10.9.0.1"),
        ([["127.0.0.1/8", BRIDGE], ["127.0.0.1/8", BRIDGE]], "127.0.0.1"),  # one machine under two names
    ],
)
def test_the_server_listens_where_all_nodes_can_reach_it(of_nodes: List[List[str]], expected: str) -> None:
    ranks = world([2] * len(of_nodes))
    announcements = [announced(one, addresses=of_nodes[one.node_rank or 0]) for one in ranks]
    assert server_address(announcements) == expected


def test_nodes_without_a_network_in_common_are_joined_by_the_way_that_leads_to_the_other() -> None:
    ranks = world([1, 1])
    own = ipv4_interfaces()
    addresses = [[one.with_prefixlen for one in own.values()], [BRIDGE, "127.0.0.9/32"]]
    announcements = [announced(one, addresses=addresses[one.node_rank or 0]) for one in ranks]
    assert server_address(announcements) in {str(one.ip) for one in own.values()}
    lost = [
        announced(one, addresses=[["127.0.0.1/8", "10.0.0.1/8"], ["127.0.0.1/8"]][one.rank]) for one in ranks
    ]
    with pytest.raises(HpcdlError, match="n1 has no IPv4 address that other nodes could reach"):
        server_address(lost)


class Client:
    """Speaks to the server as Horovod's C++ client does."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: bytes = b"") -> Tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def serving() -> bool:
    return any(thread.name == "hpcdl-rendezvous" for thread in threading.enumerate())


@pytest.fixture
def client() -> Any:
    client = Client(serve("127.0.0.1", store([2]), {"127.0.0.1"}))
    yield client
    with contextlib.suppress(OSError):  # it has ended already, or is about to
        for rank in range(2):
            client.ask("DELETE", f"/cross_{rank}_process_set_hash_1/0")


def store(ranks_of_nodes: Sequence[int]) -> Store:
    return Store(plan_ranks([announced(topology) for topology in world(ranks_of_nodes)]))


def test_the_first_value_of_a_key_is_the_one_that_counts(client: Client) -> None:
    assert client.ask("GET", "/global/0")[0] == 404
    assert client.ask("PUT", "/global/0", b"mine")[0] == 200
    assert client.ask("PUT", "/global/0", b"another one's")[0] == 200
    assert client.ask("GET", "/global/0") == (200, b"mine")


@pytest.mark.parametrize(
    "path",
    ["/global/2", "/global/rank_2", "/local_n1-1/0", "/cross_2/0", "/other/0", "/global/x", "/global", "/",
     "/global_process_set_hash_1/2"],
)  # fmt: skip
def test_what_no_rank_of_this_world_writes_is_refused(client: Client, path: str) -> None:
    for method in ("PUT", "DELETE"):
        assert client.ask(method, path, b"x")[0] == 403
    assert client.ask("GET", path)[0] == 404


def test_the_set_of_all_ranks_has_one_hash(client: Client) -> None:
    assert client.ask("PUT", "/global_process_set_hash_1e9d/0", b"x")[0] == 200
    assert client.ask("PUT", "/global_process_set_hash_2/1", b"x")[0] == 403
    assert client.ask("DELETE", "/cross_0_process_set_hash_2/0")[0] == 403
    for rank in range(2):  # which ends the server
        assert client.ask("DELETE", f"/cross_{rank}_process_set_hash_1e9d/0")[0] == 200


def test_the_expected_keys_are_those_of_three_communicators() -> None:
    ranks = plan_ranks([announced(topology) for topology in world([2, 1])])
    places = ["global/0", "global/1", "global/2", "local_n0-0/0", "local_n0-0/1", "local_n1-1/0"]
    places += ["cross_0/0", "cross_0/1", "cross_1/0"]
    both = [name for place in places for name in (place, place.replace("/", "/rank_"))]
    assert expected_paths(ranks) == {f"/{name}".encode() for name in both}


def test_an_answer_comes_in_one_piece_since_the_second_would_wait_for_an_acknowledgement(
    client: Client,
) -> None:
    client.ask("PUT", "/global/0", b"x" * 576)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"GET /global/0 HTTP/1.1\r\n\r\n")
        assert connection.recv(1 << 16).endswith(b"x" * 576)


def test_a_request_may_come_in_pieces_and_a_silent_one_holds_up_nobody(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as silent, socket.create_connection(
        ("127.0.0.1", client.port), timeout=10
    ) as slow:
        slow.sendall(b"PUT /global/1 HTTP/1.1\r\nContent-Le")
        assert client.ask("GET", "/global/1")[0] == 404
        slow.sendall(b"ngth: 6\r\n\r\nabc")
        assert client.ask("GET", "/global/1")[0] == 404
        slow.sendall(b"def")
        assert slow.recv(99).startswith(b"HTTP/1.0 200 ")
        assert client.ask("GET", "/global/1") == (200, b"abcdef")
        for rank in range(2):
            client.ask("DELETE", f"/cross_{rank}_process_set_hash_1/0")
        assert silent.recv(99) == b""  # the server ends, whoever is still connected


def test_the_server_ends_when_all_ranks_are_connected_and_not_before(client: Client) -> None:
    for scope in ("global", "local_n0-0", "cross_0", "cross_1", "global_process_set_hash_1"):
        for rank in range(2):
            client.ask("DELETE", f"/{scope}/{rank}")
    client.ask("DELETE", "/cross_0_process_set_hash_1/0")
    client.ask("DELETE", "/cross_0_process_set_hash_1/0")  # a repeated request
    assert client.ask("GET", "/global/0")[0] == 404
    client.ask("DELETE", "/cross_1_process_set_hash_1/0")
    deadline = time.monotonic() + 10
    while serving():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(OSError, match="refused"):
        client.ask("GET", "/global/0")


def test_strangers_are_not_served() -> None:
    allowed = {"10.9.8.7"}
    client = Client(serve("127.0.0.1", store([1]), allowed))
    with pytest.raises((OSError, http.client.HTTPException)):
        client.ask("GET", "/global/0")
    allowed.add("127.0.0.1")
    assert client.ask("DELETE", "/cross_0_process_set_hash_1/0")[0] == 200  # which ends the server


def test_a_rank_tells_gloo_the_interface_that_it_was_told(tmp_path: Path) -> None:
    environ = gloo_environ(world([1])[0], tmp_path, interfaces="none7,lo")
    assert (environ["HOROVOD_GLOO_IFACE"], environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]) == ("lo", "127.0.0.1")
    client = Client(int(environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]))
    assert client.ask("DELETE", "/cross_0_process_set_hash_1/0")[0] == 200  # which ends the server


#: One rank: sums the ranks' numbers, and says what Horovod believes and whether the server is still there.
PROGRAM = """
import json, os, sys, threading, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from hpcdl.common.topology import Topology
from hpcdl.runtime.rendezvous import gloo_environ
topology = Topology(**json.loads(sys.argv[1]))
import tensorflow as tf
import horovod.tensorflow as hvd
os.environ.update(gloo_environ(topology, sys.argv[2], timeout_s=90))
hvd.init()
total = float(hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum))
deadline = time.monotonic() + 10
while any(t.name == "hpcdl-rendezvous" for t in threading.enumerate()) and time.monotonic() < deadline:
    time.sleep(0.01)
serving = any(t.name == "hpcdl-rendezvous" for t in threading.enumerate())
place = [hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size()]
print(json.dumps([total, serving, place]))
"""


def test_horovod_connects_ranks_on_unequal_nodes_and_then_needs_no_server(tmp_path: Path) -> None:
    pytest.importorskip("horovod")
    ranks = world([2, 1])
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(vars(topology)), str(tmp_path / "meet")],
            env=environ,
            stdout=subprocess.PIPE,
        )
        for topology in ranks
    ]
    try:
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert answers == [
        [6.0, False, [0, 3, 0, 2, 0, 2]],
        [6.0, False, [1, 3, 1, 2, 0, 1]],
        [6.0, False, [2, 3, 0, 1, 1, 2]],
    ]
