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
from hpcdl.launch.submission.explain import cost, cost_or_hours, describe, notes
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
        ("bridges2", {"time": "49:00:00"}, "allows 48:00 h for 1 node; received 49:00 h"),
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


@pytest.mark.parametrize(
    ("site", "job", "has"),
    [
        ("leonardo", {"time": "60", "mem": "900G"}, "4 GPUs x 123500 MB"),
        (
            "bridges2",
            {"partition": "GPU-shared", "gpus_per_node": "l40s-48:1", "mem": "9T"},
            "8 GPUs x 63000 MB",
        ),
        ("bridges2", {"partition": "GPU-shared", "gpus_per_node": "v100-32:1", "mem": "9T"}, "524288 MB"),
    ],
)
def test_more_memory_than_belongs_to_the_gpus_of_a_node_is_refused(site: str, job: Any, has: str) -> None:
    with pytest.raises(BadInput, match=f"has {has} of memory; received --mem {job['mem']}; ask for less"):
        at(site, **job)


def test_all_the_memory_of_a_node_may_be_asked_for_also_by_a_job_with_one_of_its_gpus() -> None:
    assert at("leonardo", time="60", mem="494000M", gpus_per_node="1").memory_mb == 494000
    assert at("bridges2", gpus_per_node="h100-80:8", mem="2T").memory_mb == 2 * 1024**2  # more than 8 shares
    assert at("leonardo", time="60", mem="0").memory_mb is None


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


@pytest.mark.parametrize(("strategy", "gpus"), [("horovod", 1), ("hybrid", 8), ("mirrored", 8)])
def test_where_srun_is_asked_for_gpus_each_process_gets_one_for_each_replica(
    strategy: str, gpus: int
) -> None:
    options = at("frontier", strategy=strategy, time="5").srun_options
    assert [option for option in options if "gpus-per-task" in option] == [f"--gpus-per-task={gpus}"]


def test_ranks_meet_through_gloo_up_to_its_limit_and_then_through_mpi() -> None:
    assert at("frontier", nodes=16, time="5").launcher == "gloo"
    assert at("frontier", nodes=17, time="5").launcher == "mpi"
    assert at("lumi", launcher="gloo", nodes=40, time="5", mem="0").launcher == "gloo"


@pytest.mark.parametrize(
    ("site", "nodes", "ways", "launcher", "why"),
    [
        ("lumi", 1, ("gloo", "mpi"), "gloo", ""),
        ("lumi", 1, ("mpi",), "mpi", "the image's Horovod has no Gloo"),
        ("lumi", 40, ("gloo",), "gloo", "the image's Horovod has no MPI"),
        ("leonardo", 1, ("mpi",), "gloo", ""),  # the doctor says what is to be done
        ("lumi", 1, (), "gloo", ""),
        ("lumi", 1, None, "gloo", ""),  # nobody has looked
    ],
)
def test_what_the_doctor_knows_of_an_image_chooses_how_its_ranks_meet(
    site: str, nodes: int, ways: Any, launcher: str, why: str
) -> None:
    job = JobOptions(nodes=nodes, time="5", mem="0")
    layout = lay_out(load_profile(site, NOWHERE), job, RunSettings(), ways=ways)
    assert (layout.launcher, layout.launcher_why) == (launcher, why)
    assert describe(layout).endswith(f" ({why})" if why else "Gloo")
    asked = lay_out(load_profile("lumi", NOWHERE), job, RunSettings(), launcher="mpi", ways=ways)
    assert (asked.launcher, asked.launcher_why) == ("mpi", "")


def test_mpi_where_the_profile_does_not_know_it_is_refused() -> None:
    with pytest.raises(BadInput, match="--launcher mpi needs to know srun's --mpi"):
        at("leonardo", launcher="mpi", time="5")


def test_threads_follow_the_cores_and_the_profile_adds_its_variables() -> None:
    environ = at("perlmutter", time="5").environ
    assert environ["OMP_NUM_THREADS"] == environ["TF_NUM_INTRAOP_THREADS"] == "16"
    assert environ["FI_MR_CACHE_MONITOR"] == "userfaultfd"


def test_the_profiles_interfaces_are_told_to_nccl_and_to_gloo_where_hpcdl_chooses_one() -> None:
    environ = at("juwels_booster", time="5", mem="0").environ
    assert environ["NCCL_SOCKET_IFNAME"] == environ["HOROVOD_GLOO_IFACE"] == "ib0"
    by_mpi = at("frontier", nodes=2, time="5", launcher="mpi").environ
    assert by_mpi["NCCL_SOCKET_IFNAME"] == "hsn0,hsn1,hsn2,hsn3"
    assert "HOROVOD_GLOO_IFACE" not in by_mpi


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
    lumi, there = load_profile("lumi", NOWHERE).site, at("lumi", nodes=2, time="30", mem="0")
    assert cost(lumi, there) is None
    assert cost_or_hours(lumi, there).startswith("at most 1 node-hours, 8 GPU-hours (what the site charges")
    free = small_site(
        charge_per="gpu-hour",
        gpus={"v100": {"charge": 2.0, "per_node": 4, "cores_per_gpu": 2}},
        queues={"free": {"partition": "free", "gpus": ["v100"], "charge_factor": 0, "max_min": 60}},
        default_queue="free",
    )
    layout = lay_out(free, JobOptions(time="60", mem="0"), RunSettings(), "gloo")
    assert cost(free.site, layout) == "at most 0 units (4 GPUs x 1 h x 0 per GPU-hour)"


def test_values_that_nobody_has_confirmed_are_named_where_they_are_used() -> None:
    profile = load_profile("bridges2", NOWHERE)
    (note,) = notes(profile, at("bridges2"), has_image=True)
    assert "queues.GPU: gpus, min_nodes, max_nodes, max_min, default_min" in note
    assert "container: binds, images;" in note
    assert "cpu_bind" in note
    assert "queues.GPU-shared" not in note
    assert "mpi" not in note
    assert "hpcdl site verify bridges2" in note
    assert "container" not in notes(profile, at("bridges2"), has_image=False)[0]
    assert "mpi" in notes(profile, at("bridges2", launcher="mpi"), has_image=False)[0]


def test_what_a_queue_or_a_site_asks_for_is_said() -> None:
    delta = load_profile("delta", NOWHERE)
    preempt = at("delta", partition="gpuA100x4-preempt", time="30", mem="0")
    assert any("at any time, 300 s after a warning" in note for note in notes(delta, preempt, has_image=True))
    frontier = load_profile("frontier", NOWHERE)
    assert any(
        "--constraint=nvme" in note for note in notes(frontier, at("frontier", time="5"), has_image=False)
    )


@pytest.mark.parametrize(
    ("site", "job", "launcher", "way_out"),
    [
        (
            "leonardo",
            {"nodes": 40, "time": "60"},
            "auto",
            "name srun's --mpi as mpi in your own file for the site",
        ),
        ("lumi", {"nodes": 40, "time": "5", "mem": "0"}, "gloo", "leave --launcher gloo out"),
        ("lumi", {"nodes": 40, "time": "5", "mem": "0"}, "auto", "must speak srun's --mpi=pmi2"),
    ],
)
def test_more_ranks_than_gloo_connects_are_told_the_limit_and_a_way_out(
    site: str, job: Any, launcher: str, way_out: str
) -> None:
    layout = at(site, launcher=launcher, **job)
    said = notes(load_profile(site, NOWHERE), layout, has_image=True)
    (note,) = [line for line in said if "Gloo" in line]
    assert note.startswith(f"{layout.world_size} ranks are more than the 128 that Gloo")
    assert way_out in note


def test_as_many_ranks_as_gloo_connects_are_told_nothing_of_it() -> None:
    said = notes(load_profile("lumi", NOWHERE), at("lumi", nodes=16, time="5", mem="0"), has_image=True)
    assert not [line for line in said if "Gloo" in line]


def test_a_layout_is_described_in_one_line() -> None:
    assert describe(at("bridges2", "hybrid", nodes=2)) == (
        "hybrid: 2 nodes x 1 process x 8 replicas, 40 cores for each process, 8 GPUs v100-32 on each node,"
        " srun, Horovod through Gloo"
    )
