"""Ranks that have nowhere to meet are refused before Horovod lets each of them run alone, or aborts."""

from __future__ import annotations

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology
from hpcdl.runtime.processes import check_meeting

FOLDER = {"HPCDL_RENDEZVOUS_DIR": "/shared/meet"}
SERVER = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1"}


def rank_of_two(launcher: str) -> Topology:
    return Topology(0, 2, 0, 2, 0, 1, "node1", launcher)


@pytest.mark.parametrize(
    ("launcher", "controller", "environ"),
    [
        ("hpcdl", None, FOLDER),
        ("hpcdl", "gloo", FOLDER),
        ("hpcdl", "mpi", {}),
        ("srun", None, {}),
        ("srun", "gloo", FOLDER),
        ("horovodrun", None, SERVER),
        ("openmpi", None, {"PMIX_NAMESPACE": "1"}),
        ("openmpi", "mpi", {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}),
    ],
)
def test_ranks_that_can_meet_pass(launcher, controller, environ) -> None:
    check_meeting(rank_of_two(launcher), controller, environ)


@pytest.mark.parametrize(
    ("launcher", "controller", "environ", "said"),
    [
        ("hpcdl", None, {}, "HPCDL_RENDEZVOUS_DIR"),
        ("hpcdl", "gloo", {}, "HPCDL_RENDEZVOUS_DIR"),
        ("srun", "gloo", {}, "HPCDL_RENDEZVOUS_DIR"),
        ("openmpi", "gloo", {"PMIX_NAMESPACE": "1"}, "HPCDL_RENDEZVOUS_DIR"),
        ("horovodrun", None, {"HOROVOD_CONTROLLER": "gloo"}, "HPCDL_RENDEZVOUS_DIR"),
        ("openmpi", None, {}, "PMIX_"),
    ],
)
def test_ranks_that_cannot_meet_are_refused(launcher, controller, environ, said) -> None:
    with pytest.raises(BadInput, match=said):
        check_meeting(rank_of_two(launcher), controller, environ)
