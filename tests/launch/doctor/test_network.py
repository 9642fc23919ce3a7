"""Sums are held to what the profile expects, or to what the hardware says; and so is the interface that is taken."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

import pytest

from hpcdl.launch.doctor.network import network_findings
from hpcdl.launch.doctor.verdict import Finding
from tests.launch.doctor.facts import layout, met, profile, seen

#: 4 ranks send 25 MB each in that time.
SECONDS_AT = {
    "1.50 GB/s": 1.5 * 2**24 / 1.5e9,
    "0.08 GB/s": 1.5 * 2**24 / 0.08e9,
    "0.02 GB/s": 1.5 * 2**24 / 0.02e9,
}


def _judged(
    seconds: float = 0.05,
    interfaces: Optional[Dict[str, Optional[int]]] = None,
    fabrics: Optional[List[str]] = None,
    nodes: int = 2,
    on_gpu: bool = False,
    **known: Any,
) -> Dict[str, Finding]:
    site, what, how = profile(**known), seen(), met()
    for one in what:
        one.update(interfaces=interfaces or {"eth0": None}, fabrics=fabrics or [])
    for one in how:
        one.update(seconds=seconds, on_gpu=on_gpu)
    planned = dataclasses.replace(layout(site), num_nodes=nodes, processes_per_node=4 // nodes)
    return {one.check: one for one in network_findings(what, how, site, planned)}


@pytest.mark.parametrize(("expected", "status"), [(0.5, "ok"), (1.5, "warning")])
def test_sums_are_held_to_what_the_profile_expects(expected: float, status: str) -> None:
    finding = _judged(allreduce_gb_per_s=expected)["bandwidth"]
    assert finding.status == status
    assert f"the profile expects {expected:g}" in finding.evidence


@pytest.mark.parametrize(
    ("at", "words", "status"),
    [
        ("0.08 GB/s", {"fabrics": ["mlx5_0"]}, "warning"),
        ("1.50 GB/s", {"fabrics": ["mlx5_0"]}, "ok"),
        ("0.08 GB/s", {"interfaces": {"eth0": 100000}}, "warning"),
        ("0.08 GB/s", {"interfaces": {"eth0": 1000}}, "ok"),  # there is no more
        ("0.02 GB/s", {"interfaces": {"eth0": 10000}}, "warning"),
        ("0.02 GB/s", {"interfaces": {"eth0": None}}, "ok"),  # nobody knows better
        ("0.08 GB/s", {"nodes": 1}, "warning"),
        ("1.50 GB/s", {"nodes": 1}, "ok"),
        ("0.08 GB/s", {"nodes": 1, "on_gpu": True}, "warning"),
        ("1.50 GB/s", {"nodes": 1, "on_gpu": True}, "ok"),
    ],
)
def test_without_that_they_are_held_to_what_the_hardware_says(
    at: str, words: Dict[str, Any], status: str
) -> None:
    finding = _judged(SECONDS_AT[at], **words)["bandwidth"]
    assert (finding.status, finding.cure == "") == (status, status == "ok")
    assert finding.evidence.startswith(f"sums at {at} over ")


def test_a_slow_interface_beside_a_fast_one_is_told_with_the_one_to_take() -> None:
    finding = _judged(interfaces={"eth0": 1000, "hsn0": 200000, "ib0": None})["interface"]
    assert (finding.status, finding.cure) == (
        "warning",
        "set socket_ifname = 'hsn0' in your own file for the site",
    )
    assert finding.evidence == "Gloo takes eth0 of node1, with 1000 Mbit/s, though hsn0 has 200000"
    assert _judged(interfaces={"eth0": 100000, "hsn0": 200000})["interface"].status == "ok"
    assert "interface" not in _judged(nodes=1)


def test_one_rank_has_nothing_to_exchange() -> None:
    site = profile()
    alone = dataclasses.replace(layout(site), num_nodes=1, processes_per_node=1)
    assert list(network_findings(seen()[:1], met()[:1], site, alone)) == []


@pytest.mark.parametrize(
    ("variables", "fabrics", "status", "said"),
    [
        ({}, [], "ok", "NCCL finds no InfiniBand here, and would take sockets over eth0, ib0"),
        ({"NCCL_SOCKET_IFNAME": "ib"}, [], "ok", "would take sockets over ib0; NCCL_SOCKET_IFNAME=ib"),
        ({"NCCL_SOCKET_IFNAME": "^eth"}, [], "ok", "would take sockets over ib0"),
        ({"NCCL_SOCKET_IFNAME": "^=eth0"}, [], "ok", "would take sockets over ib0"),
        ({"NCCL_SOCKET_IFNAME": "=ib"}, [], "warning", "NCCL_SOCKET_IFNAME==ib names none of eth0, ib0"),
        ({"NCCL_SOCKET_IFNAME": "hsn"}, ["mlx5_0"], "warning", "names none of eth0, ib0"),
        ({}, ["mlx5_0", "mlx5_1"], "ok", "NCCL would take mlx5_0, mlx5_1"),
        ({"NCCL_IB_HCA": "mlx5_1"}, ["mlx5_0"], "ok", "NCCL_IB_HCA=mlx5_1"),
        ({"NCCL_IB_DISABLE": "1"}, ["mlx5_0"], "warning", "told NCCL_IB_DISABLE=1, though there is mlx5_0"),
        ({"NCCL_IB_DISABLE": "0"}, ["mlx5_0"], "ok", "NCCL would take mlx5_0"),
        ({"NCCL_NET": "Socket"}, ["mlx5_0"], "warning", "told NCCL_NET=Socket, though there is mlx5_0"),
        ({"NCCL_NET": "AWS Libfabric"}, ["hsn0"], "ok", "NCCL is told its network; NCCL_NET=AWS Libfabric"),
        ({}, ["hsn0"], "ok", "would take sockets over eth0, ib0, unless the image has a plugin for hsn0"),
    ],
)
def test_what_nccl_would_take_is_told_as_far_as_variables_and_kernel_do(
    variables: Dict[str, str], fabrics: List[str], status: str, said: str
) -> None:
    what = seen()
    for one in what:
        one.update(interfaces={"eth0": None, "ib0": None}, fabrics=fabrics, nccl=variables)
    site = profile()
    planned = dataclasses.replace(layout(site), gpus_per_node=2)
    (finding,) = [one for one in network_findings(what, met(), site, planned) if one.check == "nccl"]
    assert finding.status == status
    assert said in finding.evidence


def test_nccl_is_not_asked_for_without_gpus_or_on_one_node() -> None:
    assert "nccl" not in _judged()
    assert "nccl" not in _judged(nodes=1)
