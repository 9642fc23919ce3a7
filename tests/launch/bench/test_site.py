"""A study at a site: one job for each point and repeat, no dearer than allowed, and only what is missing is submitted.

Slurm's programs are stand-ins on PATH; what a job leaves is written by hand. All else is real.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import sys

import pytest

from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE
from hpcdl.common.step_times import StepLog
from hpcdl.launch.bench import rounds, site
from hpcdl.launch.bench.site_words import is_meant
from hpcdl.launch.bench.study import read_record, read_study
from hpcdl.launch.cli import main
from hpcdl.launch.machine import read_machine
from hpcdl.launch.submission.executors import unset_names
from hpcdl.launch.submission.job import read_job
from hpcdl.launch.surroundings import describe_environment

SITE = """
title = "A small site"
scheduler = "slurm"
default_queue = "cpu"
[container]
kind = "none"
[queues.cpu]
partition = "cpu"
max_nodes = 4
max_min = 600
cores_per_node = 4
memory_mb_per_node = 1000
"""
#: Numbers the jobs, and says of those in queue.txt that they run.
STAND_IN = """#!{python}
import os, pathlib, sys
here = pathlib.Path(__file__).parent
if os.path.basename(sys.argv[0]) == "sbatch":
    count = len((here / "jobs.txt").read_text().splitlines()) + 1
    with open(here / "jobs.txt", "a") as file:
        file.write(f"{{100 + count}} {{sys.argv[1]}}\\n")
    print(f"Submitted batch job {{100 + count}}")
elif os.path.basename(sys.argv[0]) == "sshare":
    print(os.environ.get("STAND_IN_left", ""))
else:
    print((here / "queue.txt").read_text(), end="")
"""
WORDS = ("--site", "small", "--image", "none", "-t", "30", "--study", "study")
NODES = ("-N", "1,2", "--repeat", "2")
TARGET = "fashion_mnist/fc64"


@pytest.fixture
def place(tmp_path, monkeypatch):
    sites = tmp_path / "config" / "hpcdl" / "sites"
    sites.mkdir(parents=True)
    (sites / "small.toml").write_text(SITE)
    (sites.parent / "config.toml").write_text(f'shared_folder = "{tmp_path}"\n')
    programs = tmp_path / "stand-ins"
    programs.mkdir()
    for name in ("jobs.txt", "queue.txt"):
        (programs / name).touch()
    for name in ("sbatch", "squeue", "sshare"):
        (programs / name).write_text(STAND_IN.format(python=sys.executable))
        (programs / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    for name in unset_names(site.os.environ):
        monkeypatch.delenv(name)
    return tmp_path


def bench(capsys, *words):
    status = main(["bench", *WORDS, *words, TARGET])
    said = capsys.readouterr()
    return status, said.out, said.err


def submitted(place):
    return len((place / "stand-ins" / "jobs.txt").read_text().splitlines())


def finish(at, seconds, nodes):
    """Writes what the ranks and the keeper of a job leave."""
    run = at / "process-0"
    for rank in range(nodes):
        StepLog(run, rank, f"n{rank}").append(0, [9.0] * 15 + [seconds] * 80)
    config = {"per_replica_batch_size": 8, "global_batch_size": 8 * nodes, "samples_in_data": 800}
    clocks = {"seconds": 8.0, "machine": 8.0 + nodes, "stolen": 0.0, "own": 8.0, "num_cores": 32}
    record = {
        "clocks": {f"n{rank}": clocks for rank in range(nodes)},
        "status": "done",
        "config": config,
        "topology": {"world_size": nodes},
    }
    (run / "run.json").write_text(json.dumps(record))
    (folder,) = at.glob("*/job.json")
    state = {"state": "done", "started": 1.0, "ended": 61.0, "image": {"sif_id": "ab12"}}
    (folder.parent / "state.json").write_text(json.dumps(state))


def test_a_dry_run_lists_the_jobs_with_their_node_hours_and_writes_nothing(place, capsys):
    status, said, _ = bench(capsys, *NODES, "--scaling", "weak,strong", "--dry-run")
    assert status == EXIT_DONE
    assert "8 jobs, 2 of each point" in said
    assert "weak-2           2 nodes, 2 ranks, at most 1 node-hours each" in said
    assert "at most 6 node-hours in all" in said  # 2 x 2 x (0.5 + 1)
    assert not (place / "study").exists()
    status, said, _ = bench(capsys, *NODES, "--controls", "--dry-run")
    assert [word in said for word in ("control-1 ", "control-2 ", "cached-1 ", "cached-2 ")] == [False] + [
        True
    ] * 3


def test_a_trace_is_a_job_of_its_own_that_no_report_takes_for_a_measurement(place, capsys):
    few = ("-N", "1,2", "--repeat", "1", "--trace")
    said = bench(capsys, *few, "--dry-run")[1]
    assert "trace            of weak-2, at most 1 node-hours" in said
    assert "at most 2.5 node-hours in all" in said
    assert "trace of weak-2: job 103" in bench(capsys, *few)[1]
    at = place / "study" / "trace"
    (path,) = at.glob("*/job.json")
    settings = BenchSettings(steps=25, untimed_steps=15, trace=True, weak=True)
    assert BenchSettings.from_environ(read_job(path.parent).environ) == settings
    for name, nodes in (("weak-1", 1), ("weak-2", 2)):
        finish(place / "study" / "round-000" / name, 0.1, nodes)
    finish(at, 0.1, 2)
    assert bench(capsys, *few)[1].count(": done") == 3
    study = read_study(place / "study")
    assert ([row.planned.name for row in study.rows], study.problems) == (["weak-1", "weak-2"], ())


def test_more_busy_threads_than_cores_are_functional_only(place, capsys):
    few, many = ("--replicas-per-process", "4"), ("--replicas-per-process", "5")
    assert "functional" not in bench(capsys, *NODES, *few, "--dry-run")[1]
    assert "sharing cores: functional, not performance" in bench(capsys, *NODES, *many, "--dry-run")[1]


def test_a_dearer_study_is_refused_before_anything_is_submitted(place, capsys):
    status, _, error = bench(capsys, *NODES, "--max-node-hours", "2.9")
    assert status == EXIT_BAD_INPUT
    assert "at most 2.9 node-hours; it may take 3" in error
    assert not (place / "study").exists()
    assert submitted(place) == 0
    assert bench(capsys, *NODES, "--max-node-hours", "3", "--dry-run")[0] == EXIT_DONE


@pytest.mark.parametrize(("has_left", "is_warned"), [(180, False), (179, True)])
def test_a_study_that_may_use_more_than_the_account_has_left_is_a_warning(
    has_left, is_warned, place, capsys, monkeypatch
):
    monkeypatch.setenv("STAND_IN_left", f"node={has_left}|node=0|node=0")
    _, _, said = bench(capsys, *NODES, "-A", "abc")  # twice 30 minutes of 1 node, and of 2
    warning = f"abc has {has_left / 60:.1f} node-hours left, and what is missing of this study may use 3.0: "
    assert (warning in said) == is_warned
    assert submitted(place) == 4
    for number, nodes in ((0, 1), (0, 2), (1, 1)):
        finish(place / "study" / f"round-{number:03}" / f"weak-{nodes}", 0.1, nodes)
    _, _, said = bench(capsys, *NODES, "-A", "abc")  # of the fourth nothing is known any more
    assert submitted(place) == 5
    assert "what is missing" not in said


def test_each_point_is_a_job_that_is_told_what_it_is_for(place, capsys):
    assert bench(capsys, *NODES, "--scaling", "strong")[0] == EXIT_DONE
    assert submitted(place) == 4
    for number in (0, 1):
        at = place / "study" / f"round-{number:03d}" / "strong-2"
        (path,) = at.glob("*/job.json")
        job = read_job(path.parent)
        settings = BenchSettings(steps=95, untimed_steps=15, batch_of_replicas=2)
        assert BenchSettings.from_environ(job.environ) == settings
        assert (job.layout.num_nodes, job.requeue) == (2, False)
        assert job.environ["HPCDL_RUN_DIR"] == str(at / "process-0")
        assert "#SBATCH --nodes=2" in (path.parent / "job.sbatch").read_text()


def test_the_same_command_submits_only_what_is_missing_and_a_report_reads_what_is_done(place, capsys):
    assert bench(capsys, *NODES)[0] == EXIT_DONE
    assert submitted(place) == 4
    rounds = [place / "study" / f"round-{number:03d}" for number in (0, 1)]
    finish(rounds[0] / "weak-1", 0.1, 1)
    finish(rounds[0] / "weak-2", 0.125, 2)
    running = json.loads((rounds[1] / "weak-1" / "measurement.json").read_text())["job"]["id"]
    (place / "stand-ins" / "queue.txt").write_text(f"{running}|RUNNING|None|1:00|n1\n")
    status, said, _ = bench(capsys, *NODES)
    assert status == EXIT_DONE
    assert submitted(place) == 5  # round 2's weak-2 had ended without a word
    assert f"round 2, weak-1: running, job {running}" in said
    assert said.count(": done") == 2

    study = read_study(place / "study")
    one, two = study.rows
    assert two.efficiency.median == pytest.approx(0.8)
    assert two.planned.num_nodes == 2
    assert two.node_hours() == pytest.approx(2 * 800 / 128 / 3600)
    assert study.software[0]["image"] == "ab12"
    assert len(study.problems) == 2
    assert "has not measured it" in study.problems[0]
    finish(rounds[1] / "weak-1", 0.1, 1)
    finish(rounds[1] / "weak-2", 0.125, 2)
    assert bench(capsys, *NODES)[1].count(": done") == 4
    assert submitted(place) == 5
    assert main(["bench", "report", "study"]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "on small" in said
    assert "was not looked at" not in said
    assert (
        "Something else kept the machine busy in some of the rounds" not in said
    )  # 2 of 8 * 32 core seconds
    path = next(rounds[1].glob("weak-2/process-0/run.json"))
    run = json.loads(path.read_text())
    run["clocks"]["n1"]["machine"] += 32.0
    path.write_text(json.dumps(run))
    assert main(["bench", "report", "study"]) == EXIT_DONE
    assert "Something else kept the machine busy in some of the rounds" in capsys.readouterr().out
    del run["clocks"]
    path.write_text(json.dumps(run))
    assert main(["bench", "report", "study"]) == EXIT_DONE
    assert "What else ran on the nodes was not looked at in all of the rounds" in capsys.readouterr().out


ONE = ("-N", "1", "--repeat", "1")


def only_job(place):
    (path,) = (place / "study" / "round-000" / "weak-1").glob("*/job.json")
    return path.parent


@pytest.mark.parametrize("content", ["", "[1]", None])
def test_a_job_that_cannot_be_read_is_said_and_left_alone(place, capsys, content):
    assert bench(capsys, *ONE)[0] == EXIT_DONE
    handle = only_job(place) / "handle.json"
    handle.unlink()
    if content is not None:
        handle.write_text(content)
    status, said, _ = bench(capsys, *ONE)
    assert (status, submitted(place)) == (EXIT_DONE, 1)
    assert "round 1, weak-1: skipped, since it is not known whether its job runs" in said
    assert handle.parent.is_dir()
    finish(only_job(place).parent, 0.1, 1)
    assert "round 1, weak-1: done" in bench(capsys, *ONE)[1]


def test_a_folder_into_which_nobody_may_look_is_said_and_left_alone(place, capsys, monkeypatch):
    def listdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    assert bench(capsys, *ONE)[0] == EXIT_DONE
    monkeypatch.setattr(site.os, "listdir", listdir)
    status, said, _ = bench(capsys, *ONE)
    assert (status, submitted(place)) == (EXIT_DONE, 1)
    assert "weak-1: skipped" in said
    assert "Permission denied" in said


def test_a_refused_job_leaves_what_the_one_before_it_wrote(place, capsys):
    assert bench(capsys, *ONE)[0] == EXIT_DONE
    log = only_job(place) / "logs" / "rank-0.log"
    log.write_text("it failed, since")
    sbatch = place / "stand-ins" / "sbatch"
    program = sbatch.read_text()
    sbatch.write_text("#!/bin/sh\necho no more today >&2\nexit 1\n")
    status, _, error = bench(capsys, *ONE)
    assert (status, "no more today" in error) == (EXIT_BAD_INPUT, True)
    assert log.read_text() == "it failed, since"
    sbatch.write_text(program)
    assert bench(capsys, *ONE)[0] == EXIT_DONE
    assert submitted(place) == 2
    (kept,) = (place / "study" / "round-000").glob("weak-1.before/*/logs/rank-0.log")
    assert kept.read_text() == "it failed, since"
    finish(only_job(place).parent, 0.1, 1)
    assert read_study(place / "study").problems == ()


def test_a_job_that_was_handed_over_is_measured_whatever_ends_the_command_then(place, capsys, monkeypatch):
    def hand_over(*words):
        site_hand_over(*words)
        raise OSError("no space left on device")

    site_hand_over = site.hand_over
    monkeypatch.setattr(site, "hand_over", hand_over)
    with contextlib.suppress(OSError):
        bench(capsys, *ONE)
    monkeypatch.setattr(site, "hand_over", site_hand_over)
    finish(only_job(place).parent, 0.1, 1)
    assert "round 1, weak-1: done" in bench(capsys, *ONE)[1]
    assert submitted(place) == 1
    assert read_study(place / "study").problems == ()


def test_two_commands_submit_one_after_the_other(place, capsys, monkeypatch):
    def hand_over(*words):
        with pytest.raises(BlockingIOError), open(place / "study" / "submit.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return site_hand_over(*words)

    site_hand_over = site.hand_over
    monkeypatch.setattr(site, "hand_over", hand_over)
    assert bench(capsys, *ONE)[0] == EXIT_DONE
    assert submitted(place) == 1


def test_a_file_system_without_locks_is_said(place, capsys, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(rounds.fcntl, "flock", flock)
    status, _, error = bench(capsys, *ONE)
    assert (status, submitted(place)) == (EXIT_DONE, 1)
    assert "submit.lock cannot be locked (Function not implemented)" in error


@pytest.mark.parametrize(
    ("words", "points"),
    [
        (("-N", "2,1", "--np", "2,4"), ["weak-2 on 2", "weak-4 on 1"]),
        (("-N", "2,1,1", "--np", "8,4,2"), ["weak-2 on 1", "weak-4 on 1", "weak-8 on 2"]),
        (("-N", "1", "--np", "4,2,2"), ["weak-2 on 1", "weak-4 on 1"]),
        (("-N", "2,1,2"), ["weak-1 on 1", "weak-2 on 2"]),
    ],
)
def test_nodes_and_processes_are_paired_as_they_were_typed(place, capsys, words, points):
    assert bench(capsys, *words, "--repeat", "1")[0] == EXIT_DONE
    planned = read_record(place / "study")["points"]
    assert [f"{point['name']} on {point['num_nodes']}" for point in planned] == points


@pytest.mark.parametrize("words", [["-N1,2"], ["-N", "1,2"], ["--nodes=1,2"], ["--site", "small"]])
def test_words_that_only_a_site_has_ask_for_one(words):
    assert is_meant([*words, "my_script.py"])
    assert is_meant([TARGET, *words])
    assert not is_meant(["my_script.py", *words])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-N", "8"), "8"),
        (("-N", "1,2", "--np", "1,2,4"), "--np must name"),
        (("-N", "1,2", "--np", "4,4"), "--np must name"),
        (("-N", "1", "--untimed-steps", "5"), "at least 10"),
        (("-N", "1", "--jobs-dir", "x"), "--study"),
        (("-N", "1", "--global-batch-size", "64"), "--scaling strong"),
        (("-N", "1,3,4", "--scaling", "strong"), "512 samples and 3 replicas"),
        (("-N", "1", "--image", "missing.sif"), "missing.sif"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_submitted(place, capsys, words, says):
    status, _, error = bench(capsys, *words)
    assert status == EXIT_BAD_INPUT
    assert says in error
    assert submitted(place) == 0
    assert not (place / "study").exists()


BRIDGES = ("--site", "bridges2", "-A", "abc123p", "--image", "none", "-t", "20", "--study", "study")


def on_gpus(capsys, *words):
    status = main(["bench", *BRIDGES, *words, TARGET])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_points_of_the_same_number_of_replicas_are_no_scaling(place, capsys):
    for scaling in ("weak", "strong"):
        words = ("-N", "1", "--np", "1,2,8", "--scaling", scaling)
        status, _, error = on_gpus(capsys, *words)
        assert status == EXIT_BAD_INPUT
        assert f"received 8 of {scaling}-1, 8 of {scaling}-2, 8 of {scaling}-8" in error
        assert "--replicas-per-process 1" in error
    assert submitted(place) == 0
    assert on_gpus(capsys, *words, "--replicas-per-process", "1", "--dry-run")[0] == EXIT_DONE


def test_a_study_is_of_one_kind_of_gpu_and_says_it(place, capsys):
    words = ("-N", "1,2", "--repeat", "1", "--gpus-per-node")
    assert on_gpus(capsys, *words, "v100-32:8")[0] == EXIT_DONE
    status, _, error = on_gpus(capsys, *words, "v100-16:8")
    assert status == EXIT_BAD_INPUT
    assert "gpu_kind (v100-32 there, v100-16 here)" in error
    assert submitted(place) == 2
    for name, ranks in (("weak-8", 8), ("weak-16", 16)):
        finish(place / "study" / "round-000" / name, 0.1, ranks)
    assert main(["bench", "report", "study"]) == EXIT_DONE
    assert "on bridges2 (8 GPUs v100-32 on each node, partition GPU)" in capsys.readouterr().out
    assert "of kind v100-32\n" in describe_environment(read_machine({}), {}, "v100-32")


@pytest.mark.parametrize(
    ("words", "is_warned", "says"),
    [
        (("--repeat", "3"), True, "3 jobs of each point are too few for an interval"),
        ((), False, "Where there are too few for an interval"),
    ],
)
def test_as_many_jobs_as_an_interval_needs_are_the_default(place, capsys, words, is_warned, says):
    status, said, _ = bench(capsys, "-N", "1,2", *words)
    assert status == EXIT_DONE
    assert ("no interval: pass --repeat 4" in said) == is_warned
    rounds = sorted((place / "study").glob("round-*"))
    for i, of_round in enumerate(rounds):
        finish(of_round / "weak-1", 0.1 + 0.001 * i, 1)
        finish(of_round / "weak-2", 0.125 + 0.001 * i, 2)
    two = read_study(place / "study").rows[1]
    assert (len(rounds), two.efficiency.has_interval) == ((3, False) if is_warned else (4, True))
    assert main(["bench", "report", "study"]) == EXIT_DONE
    report = capsys.readouterr().out
    assert says in report
    assert "Recommended: 2 nodes" in report
