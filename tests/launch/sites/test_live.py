"""What a cluster says of itself, from the recorded words of a real Slurm 22.05, and from words of other forms."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.words import RunSettings
from hpcdl.launch.sites.library import load_profile, own_path
from hpcdl.launch.sites.live import (
    Cluster,
    ask_cluster,
    choose_mpi,
    differences,
    parse_mpi_types,
    parse_nodes,
    parse_partitions,
    profile_text,
    run_text,
)
from hpcdl.launch.submission.layout import lay_out
from hpcdl.launch.submission.words import JobOptions

RECORDED = Path(__file__).parent / "recorded"
_FILES: Dict[str, str] = {
    "sinfo": "sinfo.txt",
    "partition": "partition.txt",
    "config": "config.txt",
    "srun": "mpi.txt",
}


def recorded(argv: Sequence[str]) -> str:
    key = argv[0] if argv[0] in _FILES else argv[2]
    return (RECORDED / _FILES[key]).read_text()


def nothing(name: str) -> Optional[str]:
    return "/usr/bin/apptainer" if name == "apptainer" else None


@pytest.fixture
def cluster() -> Cluster:
    return ask_cluster(recorded, nothing)


def test_a_cluster_is_read_from_what_slurm_prints(cluster: Cluster) -> None:
    assert (cluster.name, cluster.slurm_version, cluster.requeue) == ("hpcbox", "22.05.8", True)
    assert not cluster.binds_cpus
    assert cluster.mpi_types == ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4")
    batch = cluster.partitions["batch"]
    assert (batch.is_default, batch.max_min, batch.max_nodes) == (True, None, None)
    assert (batch.cores_per_node, batch.memory_mb_per_node, batch.gpus) == (2, 8000, ((None, 2),))


def test_the_profile_that_init_writes_is_read_back_and_differs_in_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    own_path("box", tmp_path).parent.mkdir(parents=True)
    own_path("box", tmp_path).write_text(profile_text(cluster, "A box", "login1", "2026-11-24"))
    profile = load_profile("box", tmp_path)
    assert differences(profile.site, cluster) == []
    assert profile.site.default_queue == "batch"
    assert profile.site.gpus[profile.site.queues["batch"].gpus[0]].per_node == 2
    assert (profile.site.mpi, profile.site.cpu_bind, profile.site.container.kind) == (
        "pmix",
        "none",
        "apptainer",
    )
    assert (
        profile.sources["queues.batch.cores_per_node"].describe().startswith("confirmed: the cluster itself")
    )


def test_a_job_on_some_gpus_of_a_node_takes_their_share_of_its_cores_and_memory(
    cluster: Cluster, tmp_path: Path
) -> None:
    own_path("box", tmp_path).parent.mkdir(parents=True)
    own_path("box", tmp_path).write_text(profile_text(cluster, "A box", "login1", "2026-11-24"))
    job = JobOptions(gpus_per_node="1", time="30")
    layout = lay_out(load_profile("box", tmp_path), job, RunSettings())
    assert (layout.cores_per_process, layout.memory_mb) == (1, 4000)  # of 2 cores and 8000 MB beside 2 GPUs


def test_of_several_kinds_of_nodes_in_a_partition_each_may_be_asked_for_its_own_memory(
    tmp_path: Path,
) -> None:
    kinds = "batch*|40|515000|gpu:v100:8\nbatch*|104|2000000|gpu:h100:8\n"
    mixed = ask_cluster(lambda argv: kinds if argv[0] == "sinfo" else recorded(argv), nothing)
    own_path("box", tmp_path).parent.mkdir(parents=True)
    own_path("box", tmp_path).write_text(profile_text(mixed, "A box", "login1", "2026-11-24"))
    profile = load_profile("box", tmp_path)
    job = JobOptions(gpus_per_node="h100:8", mem="1500G", time="30")
    assert lay_out(profile, job, RunSettings()).memory_mb == 1500 * 1024
    with pytest.raises(BadInput, match="a node of batch has 515000 MB of memory; received --mem 1500G"):
        lay_out(profile, JobOptions(gpus_per_node="v100:8", mem="1500G", time="30"), RunSettings())


def test_differences_name_the_path_and_both_values(cluster: Cluster, tmp_path: Path) -> None:
    found = {one.path: one for one in differences(load_profile("bridges2", tmp_path).site, cluster)}
    assert found["slurm_version"][1:] == ("22.05.11", "22.05.8")
    assert found["queues.GPU.partition"][1:] == ("GPU", "no such partition")


def test_limits_and_typed_gpus_are_read() -> None:
    text = (
        "PartitionName=GPU Default=NO DefaultTime=01:00:00 MaxNodes=4 MaxTime=2-00:00:00 MinNodes=1"
        " OverSubscribe=EXCLUSIVE State=UP"
    )
    gpu = parse_partitions(text)["GPU"]
    assert (gpu.max_min, gpu.default_min, gpu.max_nodes, gpu.whole_nodes) == (2880, 60, 4, True)
    for no_limit in ("UNLIMITED", "00:00:00", "1-2-3", ""):
        assert parse_partitions(f"PartitionName=x MaxTime={no_limit}")["x"].max_min is None
    nodes = parse_nodes(
        "GPU|40|515000+|gpu:v100-32:8(S:0-1),nvme:1\nGPU|96|1500000|gpu:v100-32:16\nbad line\n"
    )
    assert [kind.gpus for kind in nodes["GPU"]] == [(("v100-32", 8),), (("v100-32", 16),)]
    assert nodes["GPU"][0].memory_mb == 515000


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("MPI plugin types are...\n\tnone\n\tpmi2\n", ("none", "pmi2")),
        ("srun: MPI types are...\nsrun: pmix_v3\nsrun: pmix\nsrun: none\n", ("pmix_v3", "pmix", "none")),
    ],
)
def test_both_forms_of_mpi_list_are_read(text: str, types: Sequence[str]) -> None:
    assert parse_mpi_types(text) == types


def test_mpi_is_the_clusters_default_else_pmix() -> None:
    assert choose_mpi(("pmix", "cray_shasta"), "cray_shasta") == "cray_shasta"
    assert choose_mpi(("cray_shasta", "pmi2", "pmix"), "none") == "pmix"
    assert choose_mpi(("none",), "none") is None


def test_a_machine_without_slurm_says_so() -> None:
    with pytest.raises(BadInput, match="no-such-scontrol is needed to ask the cluster"):
        run_text(["no-such-scontrol"])


def test_a_cluster_that_does_not_answer_is_quoted() -> None:
    with pytest.raises(BadInput, match="does not answer `sh -c echo not up; exit 1`: not up"):
        run_text(["sh", "-c", "echo not up; exit 1"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["sleep", "60"], "`sleep 60`: nothing in 0.1 s"), (["/dev/null"], "`/dev/null`: Permission denied")],
)
def test_a_cluster_that_is_slow_or_may_not_be_asked_is_no_traceback(argv: List[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        run_text(argv, timeout_s=0.1)
