"""Which cores ranks get, and the argv and environment that say so."""

from __future__ import annotations

import re
import shlex
from itertools import combinations
from pathlib import Path
from typing import Dict, Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.rank_start import format_cpus, parse_cpus
from hpcdl.launch.machine import Machine
from hpcdl.launch.mpirun import Mpirun
from hpcdl.launch.placement import (
    Placement,
    mpi_environ,
    place,
    rank_environ,
    shell_line,
    start_lines,
    without_world,
)

FOUR = Machine("host", ((0, 4), (1, 5), (2, 6), (3, 7)))
PLACEMENT = Placement(2, 2, ((0, 1), (2, 3)), yield_when_idle=True)
OPEN_MPI = Mpirun("/opt/bin/mpirun", "openmpi", "5.0.11")


@pytest.mark.parametrize("np", [1, 2, 3, 4])
@pytest.mark.parametrize("cores", [4, 5, 16])
def test_ranks_get_disjoint_and_equally_many_whole_cores(np: int, cores: int) -> None:
    machine = Machine("host", tuple((cpu, cpu + cores) for cpu in range(cores)))
    placement = place(machine, np)
    assert placement.cpus is not None
    assert len(placement.cpus) == np
    assert all(not set(a) & set(b) for a, b in combinations(placement.cpus, 2))
    for cpus in placement.cpus:
        assert {cpu + cores for cpu in cpus if cpu < cores} == {cpu for cpu in cpus if cpu >= cores}
        assert len(cpus) == 2 * placement.num_threads == 2 * (cores // np)


def test_cores_that_a_batch_system_has_left_to_this_job_are_used_whatever_their_numbers() -> None:
    assert place(Machine("host", ((12,), (40,))), 2).cpus == ((12,), (40,))


def test_more_ranks_than_cores_are_refused_with_the_values_and_the_way_out() -> None:
    with pytest.raises(BadInput, match=r"received np=5 on host with 4 cores; .*--oversubscribe"):
        place(FOUR, 5)


def test_on_a_cpu_replicas_need_cores_too() -> None:
    with pytest.raises(BadInput, match=r"received np=2 x replicas_per_process=3 on host with 4 cores"):
        place(FOUR, 2, replicas_per_process=3)
    assert place(FOUR, 2, replicas_per_process=2).num_threads == 2


def test_oversubscribed_ranks_share_the_cores_with_one_thread_each_and_give_way() -> None:
    placement = place(FOUR, 5, oversubscribe=True)
    assert placement == Placement(num_ranks=5, num_threads=1, cpus=None, yield_when_idle=True)


def test_permission_to_oversubscribe_changes_nothing_where_there_is_room() -> None:
    assert place(FOUR, 2, oversubscribe=True) == place(FOUR, 2)


def test_a_container_that_is_limited_in_time_gets_no_cores_of_its_own() -> None:
    machine = Machine("host", tuple((cpu,) for cpu in range(64)), cpu_limit=4.0)
    placement = place(machine, 2)
    assert (placement.cpus, placement.num_threads) == (None, 2)
    with pytest.raises(BadInput, match=r"4 cores \(the container's CPU limit\)"):
        place(machine, 5)


@pytest.mark.parametrize(
    ("num_gpus", "np", "replicas", "allowed"),
    [(2, 2, 1, True), (2, 1, 2, True), (2, 3, 1, False), (2, 2, 2, False)],
)
def test_every_replica_needs_a_gpu(num_gpus: int, np: int, replicas: int, allowed: bool) -> None:
    machine = Machine("host", FOUR.cores, num_gpus=num_gpus)
    if allowed:
        place(machine, np, replicas)
    else:
        with pytest.raises(BadInput, match=r"GPU of its own; received np=.* with 2 GPUs; .*--oversubscribe"):
            place(machine, np, replicas)
        place(machine, np, replicas, oversubscribe=True)


@pytest.mark.parametrize(
    ("num_gpus", "np", "yields"), [(0, 1, True), (0, 4, True), (4, 4, True), (4, 2, False)]
)
def test_waiting_gives_way_unless_a_rank_that_computes_on_a_gpu_has_a_core_to_spare(
    num_gpus: int, np: int, yields: bool
) -> None:
    assert place(Machine("host", FOUR.cores, num_gpus=num_gpus), np).yield_when_idle is yields


@pytest.mark.parametrize("cpus", [((0,), (1,)), ((0, 1, 2), (3, 4, 5)), ((12,), (40,))])
def test_cpus_come_back_from_the_command_line_as_they_went(cpus: object) -> None:
    assert parse_cpus(format_cpus(cpus)) == cpus  # type: ignore[arg-type]


def test_a_placement_is_described_in_a_few_words() -> None:
    assert PLACEMENT.describe() == "2 ranks, 2 cores each (CPUs 0-1 | 2-3)"
    assert Placement(3, 1, None, True).describe() == "3 ranks, unbound, 1 thread each"


def test_ranks_are_told_their_threads_unless_the_user_has_done_so() -> None:
    environ = rank_environ({"OMP_NUM_THREADS": "7", "HOME": "/h"}, PLACEMENT)
    assert environ["OMP_NUM_THREADS"] == "7"
    assert environ["TF_NUM_INTRAOP_THREADS"] == environ["TF_NUM_INTEROP_THREADS"] == "2"
    assert environ["HOME"] == "/h"


def test_open_mpi_is_kept_on_this_machine_and_told_to_give_way() -> None:
    environ = mpi_environ({"OMPI_MCA_plm": "isolated"}, PLACEMENT, OPEN_MPI)
    assert environ["OMPI_MCA_mpi_yield_when_idle"] == "1"
    assert environ["PRTE_MCA_ras"] == environ["OMPI_MCA_ras"] == "^slurm"
    assert environ["OMPI_MCA_plm"] == "isolated"
    spins = mpi_environ({}, Placement(1, 4, None, yield_when_idle=False), OPEN_MPI)
    assert "OMPI_MCA_mpi_yield_when_idle" not in spins


def test_what_an_enclosing_launcher_said_of_its_rank_is_not_passed_on() -> None:
    outer = {
        "PMI_RANK": "0",
        "PMIX_NAMESPACE": "x",
        "FLUX_TASK_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "1",
        "OMPI_MCA_ess_base_jobid": "7",
        "HPCDL_RANK": "0",
        "HOROVOD_RANK": "0",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "1",
    }
    kept = {
        "PMIX_MCA_psec": "native",
        "OMPI_MCA_btl": "tcp,self",
        "HPCDL_RUN_DIR": "runs/x",
        "HOROVOD_FUSION_THRESHOLD": "1",
        "SLURM_JOB_ID": "7",
    }
    assert without_world({**outer, **kept}) == kept


def test_under_mpirun_one_line_starts_all_ranks(tmp_path: Path) -> None:
    (line,) = start_lines(["python", "a b.py"], PLACEMENT, tmp_path, {}, OPEN_MPI)
    assert line.rank is None
    assert line.argv[:7] == (
        "/opt/bin/mpirun",
        "-np",
        "2",
        "--map-by",
        "slot:OVERSUBSCRIBE",
        "--bind-to",
        "none",
    )
    assert line.argv[8:] == (
        *("-m", "hpcdl.common.rank_start", "--log-dir", str(tmp_path)),
        *("--cpus", "0,1/2,3", "--", "python", "a b.py"),
    )
    assert line.environ["HPCDL_STATUS_DIR"] == str(tmp_path)


def test_without_mpi_each_rank_has_a_line_that_differs_in_its_place_only(tmp_path: Path) -> None:
    lines = start_lines(["python"], PLACEMENT, tmp_path, {}, None)
    assert [line.rank for line in lines] == [0, 1]
    assert lines[0].argv == lines[1].argv
    differing = {k: v for k, v in lines[1].environ.items() if lines[0].environ[k] != v}
    assert differing == {"HPCDL_RANK": "1", "HPCDL_LOCAL_RANK": "1"}
    assert lines[0].environ["HPCDL_WORLD_SIZE"] == "2"


@pytest.mark.parametrize("mpirun", [None, OPEN_MPI])
def test_ranks_are_told_where_they_would_meet_since_gloo_can_connect_what_mpirun_started(
    tmp_path: Path, mpirun: Optional[Mpirun]
) -> None:
    outer = {"HPCDL_RENDEZVOUS_DIR": "/of/an/enclosing/run"}
    for line in start_lines(["python"], PLACEMENT, tmp_path, outer, mpirun):
        assert line.environ["HPCDL_RENDEZVOUS_DIR"] == str(tmp_path / "rendezvous")


def test_log_dir_is_passed_on_as_an_absolute_path_since_a_script_may_change_its_folder() -> None:
    (line,) = start_lines(["python"], PLACEMENT, Path("logs"), {}, OPEN_MPI)
    assert line.environ["HPCDL_STATUS_DIR"] == str(Path.cwd() / "logs")


@pytest.mark.parametrize("cpus", [None, ((0,), (1,))])
def test_unbound_ranks_have_no_cpus_on_their_command_line(cpus: Optional[object], tmp_path: Path) -> None:
    (line,) = start_lines(["x"], Placement(2, 1, cpus, True), tmp_path, {}, OPEN_MPI)  # type: ignore[arg-type]
    assert ("--cpus" in line.argv) is (cpus is not None)


def test_a_printed_command_line_can_be_pasted() -> None:
    environ: Dict[str, str] = {"B": "x y", "A": "1"}
    text = shell_line(["mpirun", "a b", "$x;'\""], environ)
    assert re.match(r"A=1 B='x y' mpirun ", text)
    assert shlex.split(text) == ["A=1", "B=x y", "mpirun", "a b", "$x;'\""]
