"""A rank that no ``hpcdl train`` has placed: its share of the cores, what it says of them, what it sets for MPI."""

from __future__ import annotations

from typing import Dict, FrozenSet

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology
from hpcdl.runtime.bare import CYCLE_TIME, ask_less_often, check_alone, end_busy_wait, own_cores, sharing
from hpcdl.runtime.bare import YIELD_WHEN_IDLE as YIELD
from hpcdl.runtime.node import Launcher, cpus_of_ranks, launcher_above


def rank_of(local_world_size: int, local_rank: int = 0, launcher: str = "openmpi") -> Topology:
    return Topology(local_rank, local_world_size, local_rank, local_world_size, 0, 1, "node1", launcher)


def cpus(**of_ranks: range) -> Dict[int, FrozenSet[int]]:
    return {int(name[1:]): frozenset(of_rank) for name, of_rank in of_ranks.items()}


def one_cpu_per_core(cpu: int):
    return (cpu,)


@pytest.mark.parametrize(
    ("of_ranks", "num_ranks", "share"),
    [
        pytest.param(cpus(r0=range(8), r1=range(8)), 2, 4, id="unbound"),
        pytest.param(cpus(r0=range(4), r1=range(4, 8)), 2, 4, id="bound to cores of their own"),
        pytest.param(cpus(r0=range(4), r1=range(4), r2=range(4, 8), r3=range(4, 8)), 4, 2, id="to sockets"),
        pytest.param(cpus(r0=range(6), r1=range(4, 8)), 2, 5, id="overlapping"),
        pytest.param(
            cpus(r0=range(3), r1=range(3), r2=range(3)), 3, 1, id="a third of each core is a whole one"
        ),
        pytest.param(cpus(r0=range(2), r1=range(2), r2=range(2)), 3, 1, id="too many ranks"),
        pytest.param(cpus(r0=range(8)), 2, 4, id="unbound, the other one is not seen"),
        pytest.param(cpus(r0=range(4)), 2, 4, id="bound, the other one is not seen"),
    ],
)
def test_a_ranks_share_is_what_it_may_use_divided_among_those_who_may(of_ranks, num_ranks, share) -> None:
    assert own_cores(rank_of(num_ranks), of_ranks, 8, one_cpu_per_core) == share


def test_two_cpus_of_one_core_are_one_core() -> None:
    of_ranks = cpus(r0=range(0, 8, 2), r1=range(1, 8, 2))
    assert own_cores(rank_of(2), of_ranks, 8, lambda cpu: (cpu % 4, cpu % 4 + 4)) == 2
    assert own_cores(rank_of(2), of_ranks, 8, lambda cpu: (cpu // 2 * 2, cpu // 2 * 2 + 1)) == 2


def test_ranks_that_share_no_cpu_are_not_spoken_of() -> None:
    assert sharing(rank_of(2), cpus(r0=range(2), r1=range(2, 4)), 2) is None


@pytest.mark.parametrize(
    ("launcher", "cure"),
    [
        ("openmpi", "mpirun --map-by slot:PE=2 --bind-to core"),
        ("srun", "srun --cpus-per-task=2 --cpu-bind=cores"),
        ("hydra", "mpiexec -bind-to core:2"),
        ("horovodrun", "hpcdl train --np N"),
    ],
)
def test_ranks_that_share_cpus_are_counted_and_the_cure_is_their_launchers(launcher: str, cure: str) -> None:
    line = sharing(rank_of(3, launcher=launcher), cpus(r0=range(3), r1=range(2, 5), r2=range(5, 9)), 2)
    assert (
        line
        == f"2 ranks on node1 share CPUs 2, and slow each other down; bind each to cores of its own, e.g. {cure}"
    )


def test_more_ranks_than_cpus_cannot_be_bound() -> None:
    line = sharing(rank_of(3), cpus(r0=range(2), r1=range(2), r2=range(2)), 1)
    assert line is not None
    assert line.endswith("share CPUs 0-1, and slow each other down; start at most 2 on a node like this")


@pytest.mark.parametrize(
    ("launcher", "environ", "num_gpus", "cores", "ends"),
    [
        pytest.param("openmpi", {}, 0, 4, True, id="computing on the CPU fills every core"),
        pytest.param("openmpi", {}, 2, 1, True, id="a GPU, but one core only"),
        pytest.param("openmpi", {}, 2, 4, False, id="a GPU and a core to spare"),
        pytest.param("openmpi", {YIELD: "0"}, 0, 1, False, id="the user has decided"),
        pytest.param("openmpi", {"HOROVOD_CONTROLLER": "gloo"}, 0, 1, False, id="Gloo does not spin"),
        pytest.param(
            "openmpi", {"HPCDL_RENDEZVOUS_DIR": "/a"}, 0, 1, False, id="nor where a folder means it"
        ),
        pytest.param("hydra", {}, 0, 1, False, id="another MPI"),
    ],
)
def test_open_mpis_busy_wait_ends_where_no_core_is_to_spare(launcher, environ, num_gpus, cores, ends) -> None:
    topology = rank_of(2, launcher=launcher)
    variables, line = end_busy_wait(topology, environ, num_gpus, cores, is_mpi_up=False)
    assert variables == ({YIELD: "1"} if ends else {})
    assert (line is not None) == ends
    variables, line = end_busy_wait(topology, environ, num_gpus, cores, is_mpi_up=True)
    assert variables == {}
    assert (line is not None and f"set {YIELD}=1 before mpirun" in line) == ends


@pytest.fixture
def proc(tmp_path):
    """Writes a small /proc; gives it, and a function that adds a process."""

    def add(pid: int, parent: int, name: str = "python", **environ: str) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
        (tmp_path / str(pid) / "environ").write_text("\0".join(f"{k}={v}" for k, v in environ.items()))

    (tmp_path / "version").write_text("Linux")
    return tmp_path, add


def openmpi(rank: int, start: str = "a", **more: str) -> Dict[str, str]:
    return {
        "PMIX_NAMESPACE": start,
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": "3",
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
        **more,
    }


def test_the_ranks_of_the_same_start_are_found_and_no_other_process(proc) -> None:
    folder, add = proc
    affinities = {0: {0}, 11: {0}, 12: {1, 2, 3}, 13: {1, 2}, 14: {9}, 15: {9}, 16: {9}}
    add(11, 1, **openmpi(0))
    add(12, 1, "bash", **openmpi(1))  # a shell around the rank, with more CPUs than it
    add(13, 12, **openmpi(1))
    add(14, 1, **openmpi(2, start="another mpirun"))
    add(15, 1, HOME="/root")
    add(16, 1, **{**openmpi(2), "OMPI_COMM_WORLD_SIZE": "x"})
    add(17, 1, **openmpi(2))  # gone before its affinity is asked for

    def affinity(pid: int):
        if pid not in affinities:
            raise ProcessLookupError(pid)
        return affinities[pid]

    assert cpus_of_ranks(openmpi(0), folder, affinity) == {0: {0}, 1: {1, 2}}
    assert cpus_of_ranks({"HOME": "/root"}, folder, affinity) == {}


def test_the_launcher_above_is_found_with_the_number_of_its_children(proc) -> None:
    folder, add = proc
    add(1, 0, "systemd")
    add(5, 1, "prterun")
    add(11, 5, "bash")
    add(12, 11)
    add(13, 5, "a (strange) name")
    assert launcher_above(12, folder) == Launcher("prterun", 5, 2)
    assert launcher_above(5, folder) is None
    assert launcher_above(99, folder) is None


def test_one_of_several_that_no_variable_has_reached_is_refused() -> None:
    check_alone(None)
    check_alone(Launcher("mpirun", 5, 1))
    with pytest.raises(BadInput, match=r"mpirun \(process 5\) started 2 processes .* HPCDL_WORLD_SIZE=1"):
        check_alone(Launcher("mpirun", 5, 2))


@pytest.mark.parametrize(
    ("num_gpus", "cores", "said", "is_set"),
    [
        pytest.param(0, 8, {}, True, id="computing on the CPU fills every core"),
        pytest.param(1, 1, {}, True, id="one core feeds a GPU"),
        pytest.param(1, 2, {}, False, id="a core to spare"),
        pytest.param(0, 8, {CYCLE_TIME: "1"}, False, id="the user decides"),
    ],
)
def test_horovods_thread_asks_less_often_where_it_takes_a_core_that_computes(
    num_gpus, cores, said, is_set
) -> None:
    assert (CYCLE_TIME in ask_less_often(said, num_gpus, cores)) is is_set
