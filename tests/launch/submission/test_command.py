"""``hpcdl submit`` up to the job: dry run, the file that submitit hands to sbatch, and what bad input leaves behind.

Slurm's programs are stand-ins on PATH that keep what they were given; all else is real.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from hpcdl.launch.cli import main
from hpcdl.launch.submission.executors import unset_names
from hpcdl.launch.tried_images import note_image
from tests.ordinary import run_python

ROOT = Path(__file__).resolve().parents[3]
WEIRD = "a b'c\"d$HOME;e&f"
SUBMIT = ["submit", "--site", "small", "-A", "abc", "-t", "30"]
SITE = """
title = "A small site"
scheduler = "slurm"
account_required = true
default_queue = "gpu"
gpu_request = "gres"
sbatch_args = ["--licenses=scratch"]
setup = ["export FROM_SETUP='a b'"]
[container]
kind = "apptainer"
gpu_flags = ["--nv"]
[gpus.v100]
type = "v100"
per_node = 2
cores_per_gpu = 3
memory_mb_per_gpu = 1000
[queues.gpu]
partition = "gpu"
gpus = ["v100"]
max_nodes = 4
max_min = 600
"""
STAND_IN = """#!{python}
import json, os, sys
name = os.path.basename(sys.argv[0])
given = {{"argv": sys.argv[1:], "environ": dict(os.environ)}}
if name == "sbatch":
    given["text"] = sys.stdin.read() if sys.argv[1:] == ["--test-only"] else open(sys.argv[1]).read()
with open({folder!r} + "/" + name + ".json", "w") as file:
    json.dump(given, file)
number = os.environ.get("STAND_IN_id", "4242")
left = os.environ.get("STAND_IN_left", "")
says = {{"sbatch": f"Submitted batch job {{number}}", "squeue": "2026-11-24T12:00:00", "sshare": left}}
print(says.get(name, ""))
sys.exit(int(os.environ.get("STAND_IN_" + name, "0")))
"""


class Place:
    """A folder where a user stands, with a site of their own and stand-ins for Slurm's programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "stand-ins"
        self.bin.mkdir(parents=True)
        sites = folder / "config" / "hpcdl" / "sites"
        sites.mkdir(parents=True)
        (sites / "small.toml").write_text(SITE)
        (sites.parent / "config.toml").write_text(f"shared_folder = '''{folder.parent}'''\n")
        for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sshare"):
            (self.bin / name).write_text(STAND_IN.format(python=sys.executable, folder=str(self.bin)))
            (self.bin / name).chmod(0o755)
        (folder / "train.py").write_text("print('hello')\n")

    def given(self, name: str) -> Dict[str, object]:
        loaded: Dict[str, object] = json.loads((self.bin / f"{name}.json").read_text())
        return loaded

    def jobs(self) -> List[Path]:
        return sorted(self.folder.glob("hpcdl-jobs/*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / WEIRD)
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("PWD", str(place.folder))
    monkeypatch.setenv("PATH", f"{place.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place.folder / "config"))
    monkeypatch.delenv("HPCDL_DEBUG", raising=False)
    for name in unset_names(os.environ):
        monkeypatch.delenv(name)
    return place


def without_time(text: str) -> str:
    return re.sub(r"\d{8}T\d{6}Z-train(-\d)?", "JOB", text)


def test_a_dry_run_which_answers_in_a_blink_loads_nothing_of_what_a_submission_needs_besides(
    place: Place,
) -> None:
    code = f"""
import sys
from hpcdl.launch.cli import main
assert main({[*SUBMIT, "--image", "none", "--dry-run", "train.py"]!r}) == 0
print(*sorted(sys.modules), file=sys.stderr)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert "hpcdl.launch.submission.preparing" in loaded
    of_submission = {
        f"hpcdl.launch.submission.{name}" for name in ("handover", "accounting", "folders", "lib")
    }
    of_others = {"hpcdl.launch.sites.live", "hpcdl.launch.placement", "hpcdl.launch.processes", "difflib"}
    assert not loaded & (of_submission | of_others)


def test_the_dry_run_is_the_file_that_is_submitted_but_for_folder_and_time(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--image", "none", "-N", "2", "--dry-run", "train.py"]) == 0
    shown = capsys.readouterr().out
    assert place.jobs() == []
    assert main([*SUBMIT, "--image", "none", "-N", "2", "train.py"]) == 0
    assert capsys.readouterr().out == "4242\n"
    (job,) = place.jobs()
    submitted = (job / "4242_submission.sh").read_text()
    assert submitted == place.given("sbatch")["text"]
    assert without_time(shown) == without_time(submitted)


def test_more_than_the_account_has_left_is_a_warning_and_the_job_is_submitted(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(place.folder))  # a Python below /tmp is warned of as well
    argv = [*SUBMIT, "--image", "none", "-N", "2", "train.py"]  # 2 nodes x 2 GPUs x 30 minutes
    monkeypatch.setenv("STAND_IN_left", "gres/gpu=6120|gres/gpu=6000|gres/gpu=0")
    assert main(argv) == 0
    assert capsys.readouterr().err.count("warning") == 0
    monkeypatch.setenv("STAND_IN_left", "gres/gpu=6060|gres/gpu=6000|gres/gpu=0")
    assert main(argv) == 0
    shown = capsys.readouterr()
    assert shown.out == "4242\n"
    (warning,) = [line for line in shown.err.splitlines() if line.startswith("warning")]
    assert "abc has 1.0 GPU-hours left, and this job may use 2.0: " in warning


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "partition gpu, the default qos, account abc, 0:30 h"),
        (["-q", "high"], "partition gpu, qos high, account abc, 0:30 h"),
    ],
)
def test_the_plan_says_where_a_job_waits_also_where_slurm_chooses_it(
    place: Place, words: List[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, *words, "--image", "none", "--dry-run", "train.py"]) == 0
    assert f"job          {said}" in capsys.readouterr().err


def test_ranks_of_an_image_without_gloo_meet_through_mpi_and_that_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDL_CACHE", str(place.folder / "cache"))
    (place.folder / "tf.sif").touch()
    words = ["--site", "lumi", "-A", "abc", "-t", "30", "--mem", "0", "--image", "tf.sif", "--dry-run"]
    assert main(["submit", *words, "train.py"]) == 0
    assert "Horovod through Gloo\n" in capsys.readouterr().err
    note_image("tf.sif", True, os.environ, ways=["mpi"])
    assert main(["submit", *words, "train.py"]) == 0
    said = capsys.readouterr().err
    assert "Horovod through MPI (the image's Horovod has no Gloo)\n" in said
    assert "--mpi=pmi2" in said


def test_every_request_is_explicit(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.folder / "tf.sif").touch()
    argv = [
        *SUBMIT,
        "--image",
        "tf.sif",
        "-N",
        "2",
        "-q",
        "high",
        "-C",
        "a&b",
        "-J",
        "it's mine",
        "-d",
        "afterok:1",
    ]
    argv += ["--exclusive", "--reservation=r", "--mail-user=me@example.org", "--sbatch-arg=--spread-job"]
    assert main([*argv, "--no-requeue", "--dry-run", "train.py"]) == 0
    lines = [
        line[len("#SBATCH --") :] for line in capsys.readouterr().out.splitlines() if line[:8] == "#SBATCH "
    ]
    assert [line for line in lines if not line.startswith("output=")] == [
        "account=abc",
        "constraint='a&b'",
        "cpus-per-task=3",
        "dependency=afterok:1",
        "exclusive",
        "gres=gpu:v100:2",
        "job-name='it'\"'\"'s mine'",
        "licenses=scratch",
        "mail-type=END,FAIL",
        "mail-user=me@example.org",
        "mem=0",
        "no-requeue",
        "nodes=2",
        "ntasks-per-node=2",
        "open-mode=append",
        "partition=gpu",
        "qos=high",
        "reservation=r",
        "signal=URG@180",
        "spread-job",
        "time=30",
    ]


def test_the_batch_script_starts_the_ranks_with_every_word_as_it_was_typed(place: Place) -> None:
    (place.folder / "tf.sif").touch()
    words = ["--text", "two\nlines", "a 'b' \"c\" $HOME `id` ; |"]
    assert main([*SUBMIT, "--image", "tf.sif", "-N", "2", "train.py", *words]) == 0
    (job,) = place.jobs()
    (place.folder / "train.py").write_text("changed while it waits")
    environ = {
        **os.environ,
        "SLURM_JOB_ID": "4242",
        "PYTHONPATH": str(ROOT),
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    }
    done = subprocess.run(
        ["bash", str(job / "4242_submission.sh")], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    given = place.given("srun")
    argv, inherited = given["argv"], given["environ"]
    assert isinstance(argv, list)
    assert isinstance(inherited, dict)
    assert argv[-len(words) :] == words
    assert argv[argv.index("apptainer") :][:3] == ["apptainer", "exec", "--nv"]
    assert argv[argv.index("--pwd") + 1] == str(place.folder)
    assert f"PYTHONPATH={job}/code" in argv
    assert (job / "code" / "train.py").read_text() == "print('hello')\n"
    assert inherited["FROM_SETUP"] == "a b"
    assert inherited["HPCDL_IMAGE"] == str(place.folder / "tf.sif")
    assert int(inherited["HPCDL_END_TIME"]) == int(time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1)))
    assert "SLURM_CPU_BIND" not in inherited
    assert not [name for name in inherited if name.startswith("SUBMITIT")]
    assert json.loads((job / "state.json").read_text())["state"] == "done"


def test_the_nodes_own_scratch_is_named_to_the_ranks_where_it_is_there_and_seen_in_the_image(
    place: Place,
) -> None:
    own = place.folder / "config" / "hpcdl" / "sites" / "small.toml"
    own.write_text(f"scratch = '${{LOCAL:-$RAMDISK}}'\n{SITE}")
    (place.folder / "tf.sif").touch()
    scratch = place.folder.parent / "scratch"
    scratch.mkdir()
    assert main([*SUBMIT, "--image", "tf.sif", "train.py"]) == 0
    (job,) = place.jobs()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT), "APPTAINER_BIND": "/a"}
    for local, there in ((scratch, True), (scratch / "not there", False)):
        environ.update(LOCAL=str(local))
        script = ["bash", str(job / "4242_submission.sh")]
        subprocess.run(script, env=environ, capture_output=True, check=True)
        given = place.given("srun")["environ"]
        assert isinstance(given, dict)
        assert given.get("HPCDL_SCRATCH") == (str(scratch) if there else None)
        assert given["APPTAINER_BIND"] == (f"/a,{scratch}" if there else "/a")


def test_a_run_that_stopped_is_requeued_and_counted_and_then_left(place: Place) -> None:
    assert main([*SUBMIT, "--image", "none", "--max-requeues", "1", "train.py"]) == 0
    (job,) = place.jobs()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT), "STAND_IN_srun": "85"}
    # Slurm ends the keeper of a job that it requeues.
    own = (place.bin / "scontrol").read_text()
    (place.bin / "scontrol").write_text(f"{own.rpartition('sys.exit')[0]}os.kill(os.getppid(), 9)\n")
    script = ["bash", str(job / "4242_submission.sh")]
    subprocess.run(script, env=environ, capture_output=True, check=False)
    assert place.given("scontrol")["argv"] == ["requeue", "4242"]
    assert json.loads((job / "state.json").read_text())["state"] == "requeued"
    (place.bin / "scontrol.json").unlink()
    environ["SLURM_RESTART_COUNT"] = "1"
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 85
    assert not (place.bin / "scontrol.json").exists()
    assert "not requeued: 1 restarts are enough" in done.stdout
    assert json.loads((job / "state.json").read_text())["state"] == "stopped"


def test_a_job_that_slurm_does_not_requeue_has_stopped_and_says_why(place: Place) -> None:
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 0
    (job,) = place.jobs()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT), "STAND_IN_srun": "85"}
    why = "slurm_requeue error: Requested operation is disabled"
    (place.bin / "scontrol").write_text(f"#!/bin/sh\necho {why}\nexit 1\n")
    script = ["bash", str(job / "4242_submission.sh")]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 85
    state = json.loads((job / "state.json").read_text())
    assert state["state"] == "stopped"
    assert why in state["words"]
    assert "submit it again to go on" in done.stdout


def test_where_jobs_must_not_be_requeued_another_job_follows(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    own = place.folder / "config" / "hpcdl" / "sites" / "small.toml"
    own.write_text(f"requeue = false\n{SITE}")
    assert main([*SUBMIT, "--image", "none", "--max-requeues", "1", "train.py"]) == 0
    assert ", up to 1 times as a new job" in capsys.readouterr().err
    (job,) = place.jobs()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT), "STAND_IN_srun": "85"}
    environ.update(STAND_IN_id="4243")
    script = job / "4242_submission.sh"
    done = subprocess.run(["bash", str(script)], env=environ, capture_output=True, text=True, check=False)
    assert "job 4243 goes on when this one is over" in done.stdout
    given = place.given("sbatch")
    assert "#SBATCH --dependency=afterany:4242" in str(given["text"])
    assert "SLURM_JOB_ID" not in str(given["environ"])
    assert not (place.bin / "scontrol.json").exists()
    for name in ("4242", "4243"):
        assert main(["jobs", name]) == 0
        assert capsys.readouterr().out.startswith("job        4243 train: ")
    environ.update(SLURM_JOB_ID="4243")
    script = job / "4243_submission.sh"
    done = subprocess.run(["bash", str(script)], env=environ, capture_output=True, text=True, check=False)
    assert "not requeued: 1 restarts are enough" in done.stdout


def test_where_jobs_must_not_depend_on_others_none_follows(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    own = place.folder / "config" / "hpcdl" / "sites" / "small.toml"
    own.write_text(f"requeue = false\njob_chains = false\n{SITE}")
    assert main([*SUBMIT, "--image", "none", "-d", "afterok:1", "train.py"]) == 2
    assert "allows no jobs that depend on others" in capsys.readouterr().err
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 0
    assert ", requeue no" in capsys.readouterr().err


@pytest.mark.parametrize(("queue", "status"), [(["-q", "debug"], 2), ([], 0)])
def test_in_a_queue_without_chains_no_job_may_depend_on_others(
    queue: List[str], status: int, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--site", "frontier", "-A", "abc123", *queue, "-t", "30", "--image", "none", "--dry-run"]
    assert main(["submit", *words, "-d", "afterok:1", "train.py"]) == status
    said = capsys.readouterr().err
    assert ("queue debug of" in said and "leave it out, or pass another --qos" in said) is (status == 2)


@pytest.mark.parametrize(
    ("launcher", "is_moved", "words"),
    [
        ("mpirun", False, "mpirun, which starts the ranks, is not on PATH on "),
        ("gloo", True, "where the job was submitted, is no folder on "),
    ],
)
def test_a_job_whose_ranks_cannot_be_started_has_failed_and_says_why(
    place: Place, launcher: str, is_moved: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = place.folder.parent / "jobs"
    cwd = place.folder / "here"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    argv = [*SUBMIT, "--image", "none", "--jobs-dir", str(jobs), "--launcher", launcher]
    assert main([*argv, "../train.py"]) == 0
    monkeypatch.chdir(place.folder)
    if is_moved:
        cwd.rename(cwd.with_name("there"))
    (job,) = jobs.iterdir()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT)}
    (place.bin / "date").symlink_to(str(shutil.which("date")))
    environ["PATH"] = str(place.bin)  # which has no mpirun, whatever this machine has
    script = [str(shutil.which("bash")), str(job / "4242_submission.sh")]
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stdout
    state = json.loads((job / "state.json").read_text())
    assert state["state"] == "failed"
    assert words in state["words"]


def test_sbatch_does_not_see_the_variables_of_another_job_but_the_clusters_configuration(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "SLURM_CPU_BIND",
        "SBATCH_ACCOUNT",
        "SRUN_CPUS_PER_TASK",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_RANK",
        "APPTAINERENV_LD_LIBRARY_PATH",
        "SINGULARITYENV_LD_LIBRARY_PATH",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/elsewhere.conf")
    monkeypatch.setenv("SLURM_JWT", "a token")
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 0
    environ = place.given("sbatch")["environ"]
    assert isinstance(environ, dict)
    assert (environ["SLURM_CONF"], environ["SLURM_JWT"]) == ("/etc/elsewhere.conf", "a token")
    assert unset_names(environ) == []


def test_slurms_own_refusal_is_one_line_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.bin / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: Batch job submission failed: no' >&2\nexit 1\n"
    )
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "hpcdl: Slurm refuses the job: Batch job submission failed: no"
    assert not (place.folder / "hpcdl-jobs").exists()


def test_a_failure_while_a_job_is_written_is_one_line_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hpcdl.launch.submission.handover.freeze", fill_the_disk)
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 2
    assert "No space left on device; pass another --jobs-dir" in capsys.readouterr().err.splitlines()[-1]
    assert not (place.folder / "hpcdl-jobs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs-dir", "closed/jobs"], "the job's folder must be one that you may use"),
        (["--run-dir", "closed/runs/x"], "the run's folder must be one that you may use"),
    ],
)
def test_a_folder_where_one_may_not_look_is_refused_in_one_line(
    words: List[str], said: str, place: Place
) -> None:
    (place.folder / "closed").mkdir(mode=0)
    done = run_python("-m", "hpcdl", *SUBMIT, "--image", "none", *words, "train.py", cwd=place.folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"hpcdl: {said}")


def test_when_asks_slurm_and_submits_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "--image", "none", "--when", "train.py"]) == 0
    assert place.given("sbatch")["argv"] == ["--test-only"]
    assert "#SBATCH --partition=gpu" in str(place.given("sbatch")["text"])
    assert place.jobs() == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--site", "smal", "train.py"], "unknown site 'smal'; did you mean small"),
        (["--site", "small", "-t", "5", "--image", "none", "train.py"], "must name an account"),
        (["--site", "small", "-A", "a", "-t", "5", "train.py"], "a run needs an image"),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "no.sif", "train.py"],
            "the image must exist here",
        ),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "none", "--python", "foo'", "train.py"],
            '--python must be a command, quoted as for a shell; received "foo\'"',
        ),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "none", "--python", " ", "train.py"],
            "--python must be a command, quoted as for a shell; received ' '",
        ),
        (["--site", "small", "-A", "a", "-t", "11:00:00", "--image", "none", "train.py"], "allows 10:00 h"),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "none", "no.py"],
            "must be a script that exists",
        ),
        (["--site", "small", "--executor", "local", "train.py"], "--executor local needs --site local"),
        (["--site", "local", "--executor", "slurm", "train.py"], "--executor slurm needs a site with Slurm"),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "none", "--jobs-dir", "50%", "train.py"],
            "no %",
        ),
        (["--site", "local", "--np", "4096", "train.py"], "needs a core"),
        (["--site", "local", "--when", "train.py"], "--when asks Slurm"),
        (["--site", "local", "--image", "x.sif", "train.py"], "not known to run images"),
        (
            ["--site", "small", "-A", "a", "-t", "5", "--image", "docker://a/b", "--dry-run", "train.py"],
            "hpcdl container pull docker://a/b image.sif",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(
    place: Place, argv: List[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *argv]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hpcdl: ")
    assert words in last
    assert place.jobs() == []
    assert not (place.bin / "sbatch.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--run-dir", "/dev/shm/run"],
            "the run's folder must be one that the nodes see; received /dev/shm/run",
        ),
        (["--jobs-dir", "/var/tmp/jobs"], "each machine has its own /var/tmp; pass --jobs-dir"),
        (["--run-dir", "train.py/run"], "the run's folder must be one that you may use; received /"),
    ],
)
def test_folders_that_the_nodes_do_not_see_or_that_cannot_be_made_are_refused(
    place: Place, words: List[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SUBMIT, "--image", "none", *words, "train.py"]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (place.bin / "sbatch.json").exists()


def test_a_python_and_an_image_that_each_machine_has_for_itself_are_warned_of(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = str(place.folder / "tf.sif")
    Path(image).touch()

    def own(path: str, mounts: Any, shared: Any) -> Optional[str]:
        return "/own" if path in (sys.prefix, image) else None

    monkeypatch.setattr("hpcdl.launch.submission.preparing.own_of_each_node", own)
    assert main([*SUBMIT, "--image", image, "--dry-run", "train.py"]) == 0
    said = capsys.readouterr().err
    assert (
        f"warning: {sys.executable} looks after the job, on its first node, and each machine has its own /own"
        in said
    )
    assert f"warning: the ranks run in {image}, and each machine has its own /own" in said
    assert main([*SUBMIT, "--image", "none", "--dry-run", "train.py"]) == 0
    assert "the ranks run in" not in capsys.readouterr().err


def test_a_working_folder_of_one_machine_is_refused_unless_the_user_says_that_all_see_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    config = place.folder / "config" / "hpcdl" / "config.toml"
    config.write_text("")
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 2
    assert "the working folder must be one that the nodes see" in capsys.readouterr().err.splitlines()[-1]
    assert main([*SUBMIT, "--image", "none", "--dry-run", "train.py"]) == 0
    assert "here it would be refused: the working folder must be one" in capsys.readouterr().err


def test_a_python_that_only_this_machine_has_is_warned_of(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/var/tmp/venv")
    assert main([*SUBMIT, "--image", "none", "--dry-run", "train.py"]) == 0
    assert "each machine has its own /var/tmp; install hpcdl in" in capsys.readouterr().err


def test_of_a_run_folder_that_is_yet_to_be_made_an_image_sees_what_it_will_stand_in(place: Place) -> None:
    (place.folder / "tf.sif").touch()
    store = place.folder.parent / "store"
    store.mkdir()
    words = ["--image", "tf.sif", "--run-dir", str(store / "not" / "there" / "run")]
    assert main([*SUBMIT, *words, "train.py"]) == 0
    (job,) = place.jobs()
    argv = json.loads((job / "job.json").read_text())["argv"]
    assert str(store) in [argv[at + 1] for at, word in enumerate(argv) if word == "--bind"]


def test_a_job_does_not_submit_another(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 2
    assert "env -u SLURM_JOB_ID" in capsys.readouterr().err
    assert main([*SUBMIT, "--image", "none", "--dry-run", "train.py"]) == 0
    assert place.jobs() == []


def test_defaults_of_config_toml_are_used_and_its_typos_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    config = place.folder / "config" / "hpcdl" / "config.toml"
    config.write_text('site = "small"\naccount = "mine"\nimage = "none"\n')
    assert main(["submit", "-t", "5", "--dry-run", "train.py"]) == 0
    shown = capsys.readouterr()
    assert "#SBATCH --account=mine" in shown.out
    assert "site         small (of config.toml)" in shown.err
    config.write_text('acount = "mine"\n')
    assert main(["submit", "-t", "5", "--dry-run", "train.py"]) == 2
    assert "unknown key acount" in capsys.readouterr().err


def test_a_dry_run_loads_nothing_that_would_make_it_wait(place: Place) -> None:
    # It must answer in 0.3 s; a time is no property on a machine that others use as well, but what it loads is.
    argv = [*SUBMIT, "--image", "none", "--dry-run", "train.py"]
    code = (
        f"import sys; from hpcdl.launch.cli import main; main({argv!r}); print(*sys.modules, file=sys.stderr)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ
    )
    heavy = {"numpy", "matplotlib", "mpi4py", "tensorflow", "keras", "horovod", "pkg_resources"}
    assert heavy & set(done.stderr.splitlines()[-1].split()) == set()
