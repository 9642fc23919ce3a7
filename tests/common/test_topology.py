"""Who am I, and which strategy fits: read from recorded environments of each launcher.

A recorded environment is ``environments/*.json``: how the ranks were started, and the launcher's variables of
those ranks that matter.
"""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.launchers import expand_node_names, expand_tasks_per_node
from hpcdl.common.topology import Choice, Topology, choose_strategy, own_devices, read_topology

ENVIRONMENTS = Path(__file__).parent / "environments"

#: Fixture -> launcher, and for each of its ranks:
#: rank, world size, local rank, local world size, node rank, number of nodes.
RECORDED: Dict[str, Tuple[str, List[Tuple[Optional[int], ...]]]] = {
    "openmpi-4.1": ("openmpi", [(0, 2, 0, 2, 0, 1), (1, 2, 1, 2, 0, 1)]),
    "openmpi-5.0": ("openmpi", [(0, 2, 0, 2, 0, 1), (1, 2, 1, 2, 0, 1)]),
    "openmpi-4.1-in-slurm": ("openmpi", [(0, 4, 0, 2, None, None), (3, 4, 1, 2, None, None)]),
    "openmpi-5.0-in-slurm": ("openmpi", [(0, 4, 0, 2, None, None), (3, 4, 1, 2, None, None)]),
    "openmpi-4.1-in-slurm-uneven": ("openmpi", [(0, 3, 0, 2, None, None), (2, 3, 0, 1, None, None)]),
    "hydra": ("hydra", [(0, 2, 0, 2, 0, 1), (1, 2, 1, 2, 0, 1)]),
    "hydra-in-slurm": ("hydra", [(0, 4, 0, 2, None, None), (3, 4, 1, 2, None, None)]),
    "horovodrun-gloo": ("horovodrun", [(0, 2, 0, 2, 0, 1), (1, 2, 1, 2, 0, 1)]),
    "srun-none": ("srun", [(0, 4, 0, 2, 0, 2), (3, 4, 1, 2, 1, 2)]),
    "srun-pmi2": ("srun", [(0, 4, 0, 2, 0, 2), (3, 4, 1, 2, 1, 2)]),
    "srun-pmix": ("srun", [(0, 4, 0, 2, 0, 2), (3, 4, 1, 2, 1, 2)]),
    "srun-uneven": ("srun", [(0, 3, 0, 2, 0, 2), (2, 3, 0, 1, 1, 2)]),
    "srun-cyclic": ("srun", [(1, 4, 0, 2, 1, 2), (2, 4, 1, 2, 0, 2)]),
    "srun-heterogeneous": ("srun", [(0, 3, 0, 1, 0, 2), (2, 3, 1, 2, 1, 2)]),
    "srun-one": ("srun", [(0, 1, 0, 1, 0, 1)]),
    "srun-pty": ("srun", [(0, 2, 0, 2, 0, 1), (1, 2, 1, 2, 0, 1)]),
    "slurm-batch": ("none", [(0, 1, 0, 1, 0, 1)]),
    "slurm-batch-nodes-only": ("none", [(0, 1, 0, 1, 0, 1)]),
    "slurm-batch-from-step": ("none", [(0, 1, 0, 1, 0, 1)]),
    "salloc": ("none", [(0, 1, 0, 1, 0, 1)]),
    "salloc-interactive-step": ("none", [(0, 1, 0, 1, 0, 1)]),
}
OUTSIDE_SRUN = sorted(name for name, (launcher, _) in RECORDED.items() if launcher == "none")

HPCDL = {
    "HPCDL_RANK": "5",
    "HPCDL_WORLD_SIZE": "6",
    "HPCDL_LOCAL_RANK": "1",
    "HPCDL_LOCAL_WORLD_SIZE": "2",
    "HPCDL_NODE_RANK": "2",
    "HPCDL_NUM_NODES": "3",
}


def recorded(name: str, index: int = 0) -> Dict[str, str]:
    """Reads the environment of one recorded rank."""
    return dict(_ranks(name)[index]["environ"])


def world(world_size: int, local_world_size: Optional[int] = None) -> Topology:
    """Makes rank 0 of a world whose nodes are alike."""
    local = local_world_size or world_size
    launcher = "srun" if world_size > 1 else "none"
    return Topology(0, world_size, 0, local, 0, world_size // local, "node1", launcher)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_rank_knows_its_place(name: str) -> None:
    launcher, expected = RECORDED[name]
    places = []
    for rank in _ranks(name):
        topology = read_topology(rank["environ"], rank["hostname"])
        assert (topology.launcher, topology.hostname) == (launcher, rank["hostname"])
        places.append(
            (
                topology.rank,
                topology.world_size,
                topology.local_rank,
                topology.local_world_size,
                topology.node_rank,
                topology.num_nodes,
            )
        )
    assert places == expected


def test_every_recorded_environment_is_tested() -> None:
    assert {path.stem for path in ENVIRONMENTS.glob("*.json")} == set(RECORDED)


def test_recorded_environments_say_how_they_were_made() -> None:
    for path in ENVIRONMENTS.glob("*.json"):
        recording = json.loads(path.read_text(encoding="utf-8"))
        assert recording["launcher"], path.name
        assert recording["versions"], path.name


@pytest.mark.parametrize("name", OUTSIDE_SRUN)
def test_a_job_outside_srun_is_no_world_and_the_warning_names_the_cure(name: str) -> None:
    (warning,) = read_topology(recorded(name), "node1").warnings
    assert "SLURM_" in warning
    assert "srun python" in warning
    assert "\n" not in warning


def test_a_job_of_one_task_outside_srun_gives_no_warning() -> None:
    environ = {**recorded("slurm-batch"), "SLURM_NTASKS": "1", "SLURM_NPROCS": "1"}
    environ.update(SLURM_JOB_NUM_NODES="1", SLURM_NNODES="1")
    assert read_topology(environ, "node1") == Topology.alone("node1")


def test_without_a_launcher_the_process_is_alone_and_rank_0() -> None:
    topology = read_topology({"HOME": "/home/user", "SLURM_NTASKS": "4"}, "laptop")
    assert topology == Topology(0, 1, 0, 1, 0, 1, "laptop", "none")
    assert topology.is_rank_0


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PMIX_RANK": "1"}, "PMIX_RANK=1"),
        (
            {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"},
            "MV2_COMM_WORLD_RANK=0 MV2_COMM_WORLD_SIZE=2",
        ),
        ({"PALS_RANKID": "3"}, "PALS_RANKID=3"),
        ({**{"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "4"}, "SLURM_JOB_ID": "1"}, "FLUX_JOB_SIZE=4"),
    ],
)
def test_a_rank_of_a_launcher_that_is_not_read_is_refused_and_not_alone(
    environ: Dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as refusal:
        read_topology(environ, "node1")
    assert "set HPCDL_RANK" in str(refusal.value)
    assert read_topology({**environ, **HPCDL}, "node1").rank == 5


def test_rank_0_of_a_launcher_that_tells_no_world_size_is_warned() -> None:
    topology = read_topology({"PMIX_RANK": "0"}, "node1")
    assert topology.world_size == 1
    (warning,) = topology.warnings
    assert "PMIX_RANK=0" in warning


def test_the_only_rank_of_a_launcher_that_is_not_read_is_alone() -> None:
    environ = {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1"}
    assert read_topology(environ, "node1") == Topology.alone("node1")


def test_families_win_in_the_documented_order() -> None:
    layers: List[Tuple[str, Mapping[str, str]]] = [
        ("srun", recorded("srun-none", 1)),
        ("hydra", recorded("hydra")),
        ("openmpi", recorded("openmpi-5.0")),
        ("horovodrun", recorded("horovodrun-gloo")),
        ("hpcdl", HPCDL),
    ]
    environ: Dict[str, str] = {}
    for launcher, variables in layers:
        environ.update(variables)
        assert read_topology(environ, "node1").launcher == launcher


def test_hpcdls_own_variables_place_a_rank_on_its_node() -> None:
    assert read_topology(HPCDL, "node3") == Topology(5, 6, 1, 2, 2, 3, "node3", "hpcdl")


def test_a_world_of_one_needs_no_local_variables() -> None:
    topology = read_topology({"PMI_RANK": "0", "PMI_SIZE": "1"}, "node1")
    assert topology == Topology(0, 1, 0, 1, 0, 1, "node1", "hydra")


@pytest.mark.parametrize(
    "name",
    ["HPCDL_WORLD_SIZE", "HPCDL_LOCAL_RANK", "HPCDL_LOCAL_WORLD_SIZE", "HPCDL_NODE_RANK", "HPCDL_NUM_NODES"],
)
def test_a_missing_variable_is_named(name: str) -> None:
    environ = {key: value for key, value in HPCDL.items() if key != name}
    with pytest.raises(BadInput, match=f"needs {name} .*; start the ranks with mpirun"):
        read_topology(environ, "node1")


@pytest.mark.parametrize("value", ["", "one", "-1", "1.0", "1_0", "+1", "0x1"])
@pytest.mark.parametrize("name", sorted(HPCDL))
def test_a_malformed_variable_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_topology({**HPCDL, name: value}, "node1")
    assert name in str(caught.value)
    assert (value or "''") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_STEP_NUM_TASKS", "5"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x2"),
        ("SLURM_STEP_TASKS_PER_NODE", ""),
        ("SLURM_NTASKS", "2"),
        ("SLURM_NODEID", "2"),
        ("SLURM_PROCID", "4"),
        ("SLURM_LOCALID", "2"),
    ],
)
def test_variables_of_a_slurm_step_that_contradict_each_other_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_topology({**recorded("srun-none", 1), name: value}, "node2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", ["4294967291", "4294967290", "batch", ""])
def test_slurms_own_steps_are_no_world(step: str) -> None:
    environ = {**recorded("srun-none"), "SLURM_STEP_ID": step, "SLURM_STEPID": step}
    assert read_topology(environ, "node1").launcher == "none"


@pytest.mark.parametrize(
    ("text", "counts"),
    [("4", [4]), ("2(x3)", [2, 2, 2]), ("2(x2),1", [2, 2, 1]), ("1,2(x2),3", [1, 2, 2, 3])],
)
def test_slurms_short_form_is_one_number_per_node(text: str, counts: List[int]) -> None:
    assert expand_tasks_per_node("SLURM_TASKS_PER_NODE", text) == counts


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 4},
        {"rank": -1},
        {"world_size": 0},
        {"local_rank": 2},
        {"local_world_size": 5},
        {"local_rank": 1},
        {"node_rank": 2},
        {"num_nodes": 0},
        {"num_nodes": 4},
        {"num_nodes": 1},
        {"launcher": "openmp"},
    ],
)
def test_an_impossible_place_cannot_be_made(change: Dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(world(4, 2), **change)


def test_a_place_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        world(2).rank = 1  # type: ignore[misc]


# requested, replicas, world size, local world size, devices (0: a CPU), what is chosen
FITTING = [
    ("auto", None, 1, 1, 0, Choice("single", 1)),
    ("auto", 1, 1, 1, 0, Choice("single", 1)),
    ("auto", 2, 1, 1, 0, Choice("mirrored", 2)),
    ("auto", None, 4, 2, 0, Choice("horovod", 1)),
    ("auto", 2, 4, 2, 0, Choice("hybrid", 2)),
    ("auto", None, 1, 1, 1, Choice("single", 1)),
    ("auto", None, 1, 1, 4, Choice("mirrored", 4)),
    ("auto", 1, 1, 1, 4, Choice("single", 1)),
    ("auto", 2, 1, 1, 4, Choice("mirrored", 2)),
    ("auto", None, 8, 4, 4, Choice("horovod", 1)),
    ("auto", None, 4, 2, 4, Choice("hybrid", 2)),
    ("auto", None, 2, 1, 8, Choice("hybrid", 8)),
    ("auto", 2, 2, 1, 8, Choice("hybrid", 2)),
    ("auto", None, 8, 4, 1, Choice("horovod", 1)),  # each rank sees the one device that it was given
    ("single", None, 1, 1, 0, Choice("single", 1)),
    ("single", None, 1, 1, 4, Choice("single", 1)),
    ("mirrored", None, 1, 1, 0, Choice("mirrored", 1)),
    ("mirrored", 3, 1, 1, 0, Choice("mirrored", 3)),
    ("mirrored", None, 1, 1, 4, Choice("mirrored", 4)),
    ("horovod", None, 1, 1, 0, Choice("horovod", 1)),
    ("horovod", None, 4, 4, 0, Choice("horovod", 1)),
    ("horovod", None, 2, 2, 4, Choice("horovod", 1)),
    ("hybrid", 2, 2, 2, 0, Choice("hybrid", 2)),
    ("hybrid", 2, 1, 1, 0, Choice("hybrid", 2)),
    ("hybrid", None, 4, 2, 8, Choice("hybrid", 4)),
]

# requested, replicas, world size, local world size, devices, what the message names
REFUSED = [
    ("auto", None, 3, 3, 4, "3 processes and 4 devices"),
    ("auto", None, 4, 4, 2, "4 processes and 2 devices"),
    ("auto", 5, 1, 1, 4, "1 processes x 5 replicas"),
    ("auto", 2, 4, 4, 4, "4 processes x 2 replicas"),
    ("auto", 2, 1, 1, 1, "1 processes x 2 replicas"),
    ("auto", 0, 1, 1, 0, "received 0"),
    ("single", None, 2, 2, 0, "use strategy horovod"),
    ("single", 2, 1, 1, 0, "use strategy mirrored"),
    ("mirrored", 2, 2, 2, 0, "use strategy hybrid"),
    ("mirrored", None, 2, 2, 4, "use strategy hybrid"),
    ("horovod", 2, 2, 2, 0, "use strategy hybrid"),
    ("horovod", None, 4, 4, 2, "4 processes x 1 replicas"),
    ("hybrid", None, 2, 2, 0, "use strategy horovod"),
    ("hybrid", 1, 2, 2, 0, "use strategy horovod"),
    ("hybrid", None, 4, 4, 4, "use strategy horovod"),
    ("hybird", None, 1, 1, 0, "did you mean hybrid"),
]


@pytest.mark.parametrize(("requested", "replicas", "size", "local", "devices", "expected"), FITTING)
def test_a_fitting_strategy_is_chosen(
    requested: str, replicas: Optional[int], size: int, local: int, devices: int, expected: Choice
) -> None:
    kind = "GPU" if devices else "CPU"
    assert choose_strategy(requested, replicas, world(size, local), devices, kind) == expected


@pytest.mark.parametrize(("requested", "replicas", "size", "local", "devices", "named"), REFUSED)
def test_what_does_not_fit_is_refused_with_the_way_out(
    requested: str, replicas: Optional[int], size: int, local: int, devices: int, named: str
) -> None:
    with pytest.raises(BadInput) as caught:
        choose_strategy(requested, replicas, world(size, local), devices, "GPU" if devices else "CPU")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_never_leaves_a_device_idle_unless_replicas_are_given() -> None:
    for local in range(1, 9):
        for devices in range(2, 17):
            try:
                choice = choose_strategy("auto", None, world(2 * local, local), devices, "GPU")
            except BadInput:
                assert devices % local != 0
            else:
                assert choice.replicas * local == devices


def test_the_number_of_devices_is_not_read_for_a_cpu() -> None:
    assert choose_strategy("auto", None, world(2), 7, "CPU") == Choice("horovod", 1)


def _ranks(name: str) -> List[Dict[str, Any]]:
    recording = json.loads((ENVIRONMENTS / f"{name}.json").read_text(encoding="utf-8"))
    ranks: List[Dict[str, Any]] = recording["ranks"]
    return ranks


@pytest.mark.parametrize(
    ("visible", "replicas", "local_rank", "mine"),
    [
        (4, 1, 0, [0]),
        (4, 1, 3, [3]),
        (4, 2, 1, [2, 3]),
        (4, 4, 0, [0, 1, 2, 3]),
        (1, 1, 3, [0]),  # its launcher shows it one
        (2, 2, 1, [0, 1]),  # its launcher shows it two of four
        (8, 2, 0, [0, 1]),  # more than are needed
    ],
)
def test_a_rank_takes_the_gpus_of_its_local_rank_or_those_that_it_is_shown(
    visible: int, replicas: int, local_rank: int, mine: List[int]
) -> None:
    assert list(own_devices(visible, replicas, local_rank)) == mine


@pytest.mark.parametrize(("local", "replicas", "visible"), [(4, 1, 4), (2, 2, 4), (2, 4, 8), (1, 8, 8)])
def test_the_ranks_of_a_node_share_no_gpu_and_leave_none_idle(
    local: int, replicas: int, visible: int
) -> None:
    taken = [index for rank in range(local) for index in own_devices(visible, replicas, rank)]
    assert sorted(taken) == list(range(visible))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("v[005-006]", ["v005", "v006"]),
        ("v[008-010,12],w1", ["v008", "v009", "v010", "v12", "w1"]),
        ("r[1-2]n[03,5]-ib", ["r1n03-ib", "r1n5-ib", "r2n03-ib", "r2n5-ib"]),
        ("v[a-b]", []),
    ],
)
def test_the_names_of_nodes_are_read_with_their_zeros(text: str, names: List[str]) -> None:
    assert expand_node_names(text) == names


def test_in_a_step_of_slurms_nodes_have_the_names_that_it_gives_them() -> None:
    step = {
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURMD_NODENAME": "v006",
        "SLURM_JOB_NODELIST": "v[005-006]",
    }
    topology = read_topology(step, "v006.ib.example.org")
    assert topology.launcher == "srun"
    assert (topology.hostname, expand_node_names(topology.node_list)) == ("v006", ["v005", "v006"])
    of_mpirun = {
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    }  # which hands the first node's name to the ranks of all
    assert read_topology({**step, **of_mpirun, "SLURMD_NODENAME": "v005"}, "v006").hostname == "v006"
