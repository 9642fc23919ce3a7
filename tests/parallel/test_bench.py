"""Benchmarks on real ranks: a run is cut short and timed on each rank, a study comes out, exchanges are repeatable."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from hpcdl.common.bench import BenchSettings
from hpcdl.common.step_times import read_step_times
from tests.bare import environ_of_script
from tests.parallel.launching import run_program
from tests.parallel.programs.cases import IS_KERAS_3

pytestmark = pytest.mark.skipif(
    not IS_KERAS_3, reason="how a run is timed and reported does not depend on Keras"
)


def bench(folder, *words):
    environ = environ_of_script()
    command = [sys.executable, "-m", "hpcdl", "bench", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900, cwd=str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_control_run_is_cut_short_and_each_rank_keeps_its_own_gradients(tmp_path):
    settings = BenchSettings(steps=5, untimed_steps=3, without_exchange=True, trace=True)
    done = run_program(tmp_path, "benched.py", tmp_path / "run", np=2, environ=settings.to_environ())
    assert "this run is a benchmark" in done.stderr + done.stdout
    found = read_step_times(tmp_path / "run")
    assert found.problems == []
    # 10 samples are 2 whole steps of 4; 5 steps take 3 epochs of them.
    assert {rank: len(steps.step_seconds) for rank, steps in found.ranks.items()} == {0: 6, 1: 6}
    assert all(0 < seconds < 60 for steps in found.ranks.values() for seconds in steps.step_seconds)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "model.keras").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["bench"] == {"steps": 5, "untimed_steps": 3, "without_exchange": True, "trace": True}
    (clocks,) = record["clocks"].values()
    timed_s = [sum(steps.step_seconds[3:]) for steps in found.ranks.values()]
    assert clocks["seconds"] > 0.9 * max(timed_s)
    assert clocks["num_cores"] == os.cpu_count()
    trace = tmp_path / "run" / "trace"
    assert "ALLREDUCE" in (trace / "horovod.json").read_text()
    for rank in (0, 1):  # where TensorBoard's profiler looks, and as what it reads it
        (path,) = (trace / f"rank-000{rank}" / "plugins" / "profile").glob("*/*.xplane.pb")
        planes = xplane_pb2.XSpace.FromString(path.read_bytes()).planes
        assert any(plane.name == "/host:CPU" and plane.lines for plane in planes)
    assert record["config"]["precision"] == "float32"
    assert (record["config"]["xla"], record["config"]["samples_in_data"]) == (False, 10)
    assert len(record["source"]["commit"]) == 40
    assert "MPI" in record["libraries"]["mpi"]
    assert record["environ"]["HPCDL_BENCH_STEPS"] == "5"
    assert record["memory"]["host_peak_bytes"] > 10**8
    assert not any(metric.startswith("val_") for metric in record["final_metrics"])
    weights = [np.load(tmp_path / "run" / f"weights-{rank}.npy") for rank in (0, 1)]
    assert not np.array_equal(*weights)


def test_four_ranks_that_train_twice_end_in_the_same_bits(tmp_path):
    run_program(tmp_path, "repeatable.py", tmp_path, np=4)
    digests = [(tmp_path / f"digests-{rank}").read_text().splitlines() for rank in range(4)]
    assert [len(of_rank) for of_rank in digests] == [2] * 4
    assert len(set(sum(digests, []))) == 1


def test_a_quick_study_measures_all_points_and_is_reported(tmp_path):
    words = ("--np", "1,2", "--quick", "--oversubscribe", "--study", "study", "fashion_mnist/fc64")
    said = bench(tmp_path, *words)
    assert "2 independent processes, which exchange nothing, are " in said
    (found,) = json.loads(bench(tmp_path, "report", "study", "--format", "json"))
    one, two = found["rows"]
    assert (one["global_batch_size"], two["global_batch_size"]) == (128, 256)
    assert one["rate"]["median"] > 0
    assert two["ceiling"]["median"] == pytest.approx(1, abs=0.9)
    measured = (tmp_path / "study" / "round-000" / "weak-1" / "measurement.json").stat().st_mtime_ns
    assert bench(tmp_path, *words).splitlines()[-1] == said.splitlines()[-1]  # it is only read
    again = (tmp_path / "study" / "round-000" / "weak-1" / "measurement.json").stat().st_mtime_ns
    assert again == measured


def test_a_study_at_a_site_without_a_scheduler_runs_its_jobs_one_after_the_other(tmp_path):
    few = ("--steps", "10", "--untimed-steps", "10", "--repeat", "1")
    words = (
        "--site",
        "local",
        "--np",
        "1,2",
        "--oversubscribe",
        *few,
        "--study",
        "study",
        "fashion_mnist/fc64",
    )
    bench(tmp_path, *words)
    (found,) = json.loads(bench(tmp_path, "report", "study", "--format", "json"))
    assert [(row["num_replicas"], row["global_batch_size"]) for row in found["rows"]] == [(1, 128), (2, 256)]
    assert found["problems"] == []
    assert bench(tmp_path, *words).count(": done") == 2
    for name in ("weak-1", "weak-2"):
        (text,) = (tmp_path / "study" / "round-000" / name).glob("*/env.txt")
        assert "HPCDL_BENCH_STEPS=20" in text.read_text()


def test_sums_are_timed_by_horovod_and_by_mpi(tmp_path):
    words = ("--oversubscribe", "--bytes", "4K,1M", "--rounds", "1", "--repeats", "3", "--json", "sums.json")
    said = bench(tmp_path, "allreduce", *words)
    assert "Horovod us" in said
    record = json.loads((tmp_path / "sums.json").read_text())
    seconds, versions = record["seconds"], record["versions"]
    assert (record["num_nodes"], len(record["source"]["commit"])) == (1, 40)
    assert all(versions["horovod"][name] for name in ("hpcdl", "horovod", "tensorflow", "mpi"))
    assert versions["mpi"]["mpi4py"]
    assert {who: sorted(by_size) for who, by_size in seconds.items()} == {
        "horovod": ["1048576", "4096"],
        "mpi": ["1048576", "4096"],
    }
    assert all(len(of) == 3 and min(of) > 0 for by_size in seconds.values() for of in by_size.values())
