"""The allocation that a shell holds, from environments recorded inside a real Slurm, and runs that span it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.submission.allocation import (
    Allocation,
    choose_mpi_type,
    end_time_environ,
    environ_for_step,
    find_end_time,
    lay_out_allocation,
    read_allocation,
)
from hpcdl.launch.submission.argv import srun_argv

RECORDED = Path(__file__).resolve().parents[2] / "common" / "environments"
TWO_NODES = Allocation("7", num_nodes=2, num_tasks=4, cores_per_node=8, gpus_per_node=0, is_here=False)


def recorded(name: str) -> Dict[str, str]:
    environ: Dict[str, str] = json.loads((RECORDED / f"{name}.json").read_text())["ranks"][0]["environ"]
    return environ


def test_outside_of_slurm_there_is_no_allocation() -> None:
    assert read_allocation({}) is None


@pytest.mark.parametrize(("text", "cores"), [("8(x2)", 8), ("8,4", 4), ("72", 72)])
def test_cores_are_the_least_of_the_nodes(text: str, cores: int) -> None:
    allocation = read_allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": text, "SLURM_NNODES": "2"})
    assert allocation is not None
    assert (allocation.cores_per_node, allocation.num_tasks, allocation.num_nodes) == (cores, None, 2)


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({"SLURM_GPUS_PER_NODE": "v100-32:8"}, 8),
        ({"SLURM_GPUS_PER_NODE": "2"}, 2),
        ({"SLURM_GPUS_PER_NODE": "a100:2,v100:1"}, 3),
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"SLURM_GPUS": "8"}, 4),
        ({"SLURM_GPUS": "v100:3"}, 2),
        ({"SLURM_GPUS_PER_TASK": "v100:2", "SLURM_NTASKS": "6"}, 6),
        ({"SLURM_GPUS_PER_TASK": "1"}, 1),
        ({"SLURM_JOB_GPUS": "0,3"}, 2),
        ({}, 0),
    ],
)
def test_gpus_are_those_of_the_request(variables: Dict[str, str], gpus: int) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "2"}
    allocation = read_allocation({**job, **variables}, lambda argv: "")
    assert allocation is not None
    assert allocation.gpus_per_node == gpus


@pytest.mark.parametrize(
    ("job", "gpus"),
    [
        ("NumNodes=2 TRES=cpu=8,mem=4G,node=2,billing=8,gres/gpu=8,gres/gpu:v100=8 Features=(null)", 4),
        ("ReqTRES=cpu=8,gres/gpu=2 AllocTRES=cpu=8,gres/gpu=4", 2),
        ("TRES=cpu=8,node=2 TresPerNode=gres:gpu:v100:3", 3),
        ("TRES=cpu=8,node=2 TresPerNode=gres/gpu:3", 3),
        ("TRES=cpu=8,node=2", 0),
        ("", 0),
    ],
)
def test_in_a_shell_away_from_the_nodes_slurm_is_asked_for_their_gpus(job: str, gpus: int) -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "4(x2)", "SLURM_JOB_NUM_NODES": "2"}
    elsewhere = read_allocation(environ, lambda argv: job)
    here = read_allocation({**environ, "SLURMD_NODENAME": "n1"}, lambda argv: pytest.fail("it knows"))
    assert elsewhere is not None
    assert here is not None
    assert (elsewhere.gpus_per_node, here.gpus_per_node) == (gpus, 0)


def test_srun_is_needed_for_several_nodes_and_where_the_shell_is_elsewhere() -> None:
    one = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "4", "SLURM_JOB_NUM_NODES": "1"}
    here, elsewhere = read_allocation({**one, "SLURMD_NODENAME": "n1"}), read_allocation(one)
    assert here is not None
    assert elsewhere is not None
    assert (here.needs_srun, elsewhere.needs_srun, TWO_NODES.needs_srun) == (False, True, True)


@pytest.mark.parametrize(("np", "each", "cores"), [(None, 2, 4), (2, 1, 8), (16, 8, 1)])
def test_processes_are_divided_evenly_over_the_nodes(np: Any, each: int, cores: int) -> None:
    layout = lay_out_allocation(TWO_NODES, np, 1, "gloo", None)
    assert (layout.processes_per_node, layout.cores_per_process) == (each, cores)
    argv = srun_argv(layout, ["python"])
    assert {"--overlap", "--mpi=none", f"--ntasks={2 * each}", f"--cpus-per-task={cores}"} <= set(argv)


@pytest.mark.parametrize(
    ("np", "words"),
    [(3, "received np=3 on the 2 nodes of job 7"), (18, "received np=18 on 2 nodes with 8 cores")],
)
def test_what_does_not_fit_is_refused(np: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        lay_out_allocation(TWO_NODES, np, 1, "gloo", None)


def test_tasks_that_the_nodes_cannot_share_evenly_are_refused() -> None:
    job = Allocation("7", num_nodes=3, num_tasks=8, cores_per_node=8, gpus_per_node=0, is_here=False)
    with pytest.raises(
        BadInput, match="received 8 tasks, as the job has, on the 3 nodes of job 7; pass --np"
    ):
        lay_out_allocation(job, None, 1, "gloo", None)
    assert lay_out_allocation(job, 3, 1, "gloo", None).world_size == 3


def test_the_end_is_slurms_own_word_else_squeues_else_unknown() -> None:
    asked: List[Sequence[str]] = []

    def squeue(argv: Sequence[str]) -> str:
        asked.append(argv)
        return "2026-11-24T12:00:00\n"

    noon = time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))
    assert find_end_time("7", {"SLURM_JOB_END_TIME": "123"}, squeue) == 123.0
    assert asked == []
    assert find_end_time("7", {}, squeue) == noon
    assert find_end_time("7", {}, lambda argv: "N/A\n") is None
    assert find_end_time("7", {}, lambda argv: "") is None


def test_ranks_are_told_the_end_unless_the_user_tells_it_or_nobody_knows() -> None:
    allocation = read_allocation(recorded("slurm-batch"))
    assert allocation is not None

    def find(job_id: str, environ: Mapping[str, str]) -> Optional[float]:
        assert job_id == allocation.job_id
        return 123.4

    assert end_time_environ(allocation, {}, find) == {"HPCDL_END_TIME": "123"}
    assert end_time_environ(allocation, {"HPCDL_END_TIME": "9"}, find) == {}
    assert end_time_environ(allocation, {}, lambda job_id, environ: None) == {}
    assert end_time_environ(None, {}, find) == {}


def test_the_mpi_type_is_the_users_else_pmix() -> None:
    assert choose_mpi_type({}, ("pmi2", "pmix")) == "pmix"
    assert choose_mpi_type({"SLURM_MPI_TYPE": "pmi2"}, ("pmi2", "pmix")) == "pmi2"
    with pytest.raises(BadInput, match="--launcher gloo"):
        choose_mpi_type({}, ("none", "cray_shasta"))


def test_the_binding_of_the_step_around_is_not_inherited() -> None:
    environ = {"SLURM_CPU_BIND": "mask", "SLURM_CPU_BIND_LIST": "0x1", "SLURM_JOB_ID": "7"}
    environ["APPTAINERENV_LD_LIBRARY_PATH"] = "/usr/lib"
    assert environ_for_step(environ) == {"SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("name", "num_nodes", "is_here"),
    [
        ("salloc", 2, False),
        ("salloc-interactive-step", 2, True),
        ("slurm-batch", 2, True),
        ("slurm-batch-nodes-only", 2, True),
        ("srun-pty", 1, True),
    ],
)
def test_recorded_shells_of_real_allocations_are_read(name: str, num_nodes: int, is_here: bool) -> None:
    allocation = read_allocation(recorded(name))
    assert allocation is not None
    assert (allocation.num_nodes, allocation.is_here) == (num_nodes, is_here)
