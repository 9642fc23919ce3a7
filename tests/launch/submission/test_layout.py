"""Layouts at real sites' profiles: what each strategy makes of a node, and what a site does not allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.words import RunSettings
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.sites.profile import Profile, Source
from hpcdl.launch.sites.reading import Layer, parse_profile
from hpcdl.launch.submission.argv import mpirun_argv, srun_argv
from hpcdl.launch.submission.explain import cost, describe, notes
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.words import JobOptions

NOWHERE = Path("/nowhere")


def at(site: str, strategy: str = "auto", replicas: Any = None, launcher: str = "auto", **job: Any) -> Layout:
    settings = RunSettings(strategy=strategy, replicas_per_process=replicas)
    return lay_out(load_profile(site, NOWHERE), JobOptions(**job), settings, launcher)


def small_site(**values: Any) -> Profile:
    tree = {"scheduler": "slurm", **values}
    return parse_profile("small", [Layer(tree, "small.toml", Source("test", "2026", "confirmed"))])


@pytest.mark.parametrize(
    ("strategy", "nodes", "replicas", "processes", "resolved", "each", "cores"),
    [
        ("auto", 4, None, 8, "horovod", 1, 5),
        ("horovod", 1, None, 8, "horovod", 1, 5),
        ("mirrored", 1, None, 1, "mirrored", 8, 40),
        ("hybrid", 2, None, 1, "hybrid", 8, 40),
        ("hybrid", 2, 4, 2, "hybrid", 4, 20),
        ("auto", 2, 2, 4, "hybrid", 2, 10),
        ("single", 1, None, 1, "single", 1, 40),
    ],
)
def test_each_strategy_divides_a_node_of_8_gpus_and_40_cores(
    strategy: str, nodes: int, replicas: Any, processes: int, resolved: str, each: int, cores: int
) -> None:
    layout = at("bridges2", strategy, replicas, nodes=nodes, time="60")
    assert (layout.processes_per_node, layout.gpus_per_node) == (processes, 8)
    assert (layout.strategy, layout.replicas_per_process, layout.cores_per_process) == (resolved, each, cores)
    assert layout.world_size == nodes * processes


def test_whole_nodes_give_all_their_memory_and_shared_ones_the_share_of_the_gpus() -> None:
    assert at("bridges2").memory_mb is None
    assert at("bridges2", partition="GPU-shared", gpus_per_node="v100-32:2").memory_mb == 2 * 63000
    assert at("bridges2", mem="100G").memory_mb == 102400


def test_the_kind_of_node_follows_from_type_and_number() -> None:
    assert at("bridges2", gpus_per_node="v100-32:16").gpu_kind == "dgx-2"
    assert at("bridges2", gpus_per_node="h100-80:8").cores_per_process == 13
    assert at("bridges2", gpus_per_node="8").gpu_type == "v100-32"


def test_limits_that_grow_with_the_nodes_are_chosen_by_the_nodes() -> None:
    assert at("frontier", nodes=91, time="2:00:00").queue_name == "batch"
    assert at("frontier", nodes=92, time="6:00:00").queue_name == "batch-92"
    assert at("frontier", nodes=300, time="12:00:00").queue_name == "batch-184"


def test_a_qos_alone_names_a_queue() -> None:
    debug = at("perlmutter", qos="debug", nodes=2, time="30")
    assert (debug.partition, debug.qos, debug.constraint) == (None, "debug", "gpu")
    assert at("leonardo", qos="boost_qos_dbg", time="30", mem="0").partition == "boost_usr_prod"
    assert at("leonardo", time="30").qos is None


@pytest.mark.parametrize(
    ("site", "job", "words"),
    [
        ("bridges2", {"partition": "GPUs"}, "unknown partition 'GPUs' of PSC Bridges-2; did you mean GPU"),
        ("bridges2", {"nodes": 5}, "GPU of PSC Bridges-2 takes jobs of 1 to 4 nodes; received 5"),
        ("bridges2", {"time": "49:00:00"}, "allows 48:00 h for 1 nodes; received 49:00 h"),
        ("bridges2", {"gpus_per_node": "v100:8"}, "received 'v100:8'; did you mean v100-"),
        ("bridges2", {"gpus_per_node": "h100-80:9"}, "must be what a node of GPU has"),
        ("bridges2", {"gpus_per_node": "4"}, "gives whole nodes only, of 8 GPUs here; received 4"),
        ("bridges2", {"gpus_per_node": "eight"}, "--gpus-per-node must be N or TYPE:N"),
        ("bridges2", {"partition": "GPU-shared", "gpus_per_node": "5"}, "allows 4 GPUs in a job"),
        (
            "perlmutter",
            {"qos": "reglar", "time": "5"},
            "unknown qos 'reglar' of NERSC Perlmutter; did you mean regular",
        ),
        ("perlmutter", {}, "a job must have a time limit"),
        ("delta", {"time": "30"}, "a job must say its memory"),
        ("generic_slurm", {"time": "30", "mem": "0"}, "a job must say its cores"),
        ("bridges2", {"np": 3, "nodes": 2}, "received --np 3 on 2 nodes; pass a multiple of 2"),
        ("bridges2", {"np": 3, "nodes": 1}, "received 3 processes and 8 devices"),
        ("local", {"nodes": 2}, "this machine is one node"),
    ],
)
def test_what_a_site_does_not_allow_or_say_is_refused_in_one_line(site: str, job: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        at(site, **job)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "replicas", "job", "words"),
    [
        ("mirrored", None, {"nodes": 2}, "received 2 nodes; use --strategy hybrid"),
        ("single", None, {"nodes": 2}, "strategy single is one process"),
        ("hybrid", 3, {"nodes": 2}, "received 3 replicas and 8 GPUs"),
        ("horovod", 2, {"nodes": 2}, "strategy horovod"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused(strategy: str, replicas: Any, job: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        at("bridges2", strategy, replicas, **job)
    assert words in str(caught.value)


def test_more_processes_than_cores_are_refused() -> None:
    profile = small_site(queues={"q": {"partition": "q", "cores_per_node": 4, "memory_mb_per_node": 8000}})
    job = JobOptions(partition="q", time="5", nodes=2, np=10)
    with pytest.raises(BadInput, match="received 5 processes on 4 cores of a node"):
        lay_out(profile, job, RunSettings())


def test_more_memory_than_a_node_has_is_refused() -> None:
    profile = small_site(queues={"q": {"partition": "q", "cores_per_node": 4, "memory_mb_per_node": 8000}})
    job = JobOptions(partition="q", time="5", mem="9G")
    with pytest.raises(BadInput, match="a node of q has 8000 MB of memory; received --mem 9G"):
        lay_out(profile, job, RunSettings())


def test_srun_repeats_the_cores_and_numbers_ranks_node_by_node() -> None:
    argv = srun_argv(at("bridges2", nodes=2, launcher="mpi"), ["python3", "x y"])
    assert argv == [
        "srun",
        "--nodes=2",
        "--ntasks=16",
        "--ntasks-per-node=8",
        "--cpus-per-task=5",
        "--distribution=block",
        "--kill-on-bad-exit=0",
        "--wait=0",
        "--mpi=pmix",
        "--cpu-bind=cores",
        "--gpu-bind=none",
        "python3",
        "x y",
    ]
    assert mpirun_argv(at("bridges2", nodes=2), ["python3"])[:5] == [
        "mpirun",
        "-np",
        "16",
        "--map-by",
        "ppr:8:node",
    ]


def test_a_list_of_masks_binds_only_as_many_processes_as_it_has_masks() -> None:
    of_8, of_1 = at("lumi", time="5", mem="0"), at("lumi", "mirrored", time="5", mem="0")
    assert any(option.startswith("--cpu-bind=mask_cpu:7e") for option in of_8.srun_options)
    assert "--cpu-bind=cores" in of_1.srun_options


def test_ranks_meet_through_gloo_up_to_its_limit_and_then_through_mpi() -> None:
    assert at("frontier", nodes=16, time="5").launcher == "gloo"
    assert at("frontier", nodes=17, time="5").launcher == "mpi"
    assert at("lumi", launcher="gloo", nodes=40, time="5", mem="0").launcher == "gloo"


def test_mpi_where_the_profile_does_not_know_it_is_refused() -> None:
    with pytest.raises(BadInput, match="--launcher mpi needs to know srun's --mpi"):
        at("leonardo", launcher="mpi", time="5")


def test_threads_follow_the_cores_and_the_profile_adds_its_variables() -> None:
    environ = at("perlmutter", time="5").environ
    assert environ["OMP_NUM_THREADS"] == environ["TF_NUM_INTRAOP_THREADS"] == "16"
    assert environ["FI_MR_CACHE_MONITOR"] == "userfaultfd"
    assert at("juwels_booster", time="5", mem="0").environ["NCCL_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("minutes", "margin_s"), [("1", 15), ("5", 30), ("30", 180), ("50", 300), ("2880", 300)]
)
def test_ranks_are_warned_a_tenth_of_the_time_before_the_end(minutes: str, margin_s: int) -> None:
    assert at("bridges2", time=minutes).stop_margin_s == margin_s


def test_the_cost_is_said_in_the_sites_own_units() -> None:
    site = load_profile("bridges2", NOWHERE).site
    assert cost(site, at("bridges2", nodes=4, time="8:00:00")) == (
        "at most 256 SU (32 GPUs x 8 h x 1 per GPU-hour)"
    )
    assert "512 SU" in str(cost(site, at("bridges2", nodes=4, time="8:00:00", gpus_per_node="h100-80:8")))
    frontier = load_profile("frontier", NOWHERE).site
    assert cost(frontier, at("frontier", nodes=10, time="90")) == (
        "at most 15 node-hours (10 nodes x 1.5 h x 1 per node-hour)"
    )
    assert cost(load_profile("lumi", NOWHERE).site, at("lumi", time="5", mem="0")) is None


def test_values_that_nobody_has_confirmed_are_named_where_they_are_used() -> None:
    (note,) = notes(load_profile("bridges2", NOWHERE), at("bridges2"))
    assert "queues.GPU.max_nodes" in note
    assert "queues.GPU-shared" not in note
    assert "hpcdl site verify bridges2" in note


def test_a_layout_is_described_in_one_line() -> None:
    assert describe(at("bridges2", "hybrid", nodes=2)) == (
        "hybrid: 2 nodes x 1 process x 8 replicas, 40 cores for each process, 8 GPUs v100-32 on each node,"
        " srun, Horovod through Gloo"
    )
