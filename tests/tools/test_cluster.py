"""The private Slurm of the tests, as text; `make test-cluster` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.common.errors import HpcdlError
from tools.cluster import __main__ as cluster
from tools.cluster.config import Plan, address, gres_conf, hosts, node_script, slurm_conf

PLAN = Plan(Path("/tmp/box"), num_nodes=3, cores=4)


def test_every_node_is_named_in_each_file_with_the_same_address() -> None:
    for number, name in enumerate(PLAN.nodes, start=1):
        assert f"NodeName={name} NodeHostname={name} NodeAddr={address(number)} " in slurm_conf(PLAN)
        assert f"{address(number)} {name}\n" in hosts(PLAN)
        assert f"ip address add {address(number)}/24 dev eth0" in node_script(PLAN, number, [])
    assert len({address(number) for number in range(4)}) == 4


def test_nothing_of_it_is_outside_of_its_folder() -> None:
    paths = [word.partition("=")[2] for word in slurm_conf(PLAN).split() if "/" in word.partition("=")[2]]
    plugins = ("auth/", "crypto/", "proctrack/", "task/", "switch/", "sched/", "select/", "jobacct_gather/")
    plugins += ("accounting_storage/", "socket=/tmp/box/")
    assert [path for path in paths if not path.startswith(("/tmp/box/", *plugins))] == []


def test_without_gpus_there_are_none_to_ask_for() -> None:
    none = Plan(Path("/tmp/box"), gpus=0)
    assert gres_conf(none) == ""
    assert "Gres=" not in slurm_conf(none)


def test_a_machine_that_lacks_slurm_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "missing", lambda: ["slurmctld"])
    with pytest.raises(HpcdlError, match="this machine lacks slurmctld; see python -m tools.cluster install"):
        cluster.main(["run", "--", "true"])
