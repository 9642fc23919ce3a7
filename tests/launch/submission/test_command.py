"""``hpcdl submit`` up to the job: dry run, the file that submitit hands to sbatch, and what bad input leaves behind.

Slurm's programs are stand-ins on PATH that keep what they were given; all else is real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest

from hpcdl.launch.cli import main
from hpcdl.launch.submission.executors import unset_names

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
print({{"sbatch": "Submitted batch job 4242", "squeue": "2026-11-24T12:00:00", "scontrol": ""}}.get(name, ""))
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
        for name in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
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
    assert int(inherited["HPCDL_END_TIME"]) == int(time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1)))
    assert "SLURM_CPU_BIND" not in inherited
    assert not [name for name in inherited if name.startswith("SUBMITIT")]
    assert json.loads((job / "state.json").read_text())["state"] == "done"


def test_a_run_that_stopped_is_requeued_and_counted_and_then_left(place: Place) -> None:
    assert main([*SUBMIT, "--image", "none", "--max-requeues", "1", "train.py"]) == 0
    (job,) = place.jobs()
    environ = {**os.environ, "SLURM_JOB_ID": "4242", "PYTHONPATH": str(ROOT), "STAND_IN_srun": "85"}
    # Slurm ends the keeper of a job that it requeues; a scontrol that refuses makes it go on by itself.
    environ["STAND_IN_scontrol"] = "1"
    script = ["bash", str(job / "4242_submission.sh")]
    assert subprocess.run(script, env=environ, capture_output=True, check=False).returncode == 85
    assert place.given("scontrol")["argv"] == ["requeue", "4242"]
    assert json.loads((job / "state.json").read_text())["state"] == "requeued"
    (place.bin / "scontrol.json").unlink()
    environ["SLURM_RESTART_COUNT"] = "1"
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 85
    assert not (place.bin / "scontrol.json").exists()
    assert "not requeued: 1 restarts are enough" in done.stdout
    assert json.loads((job / "state.json").read_text())["state"] == "stopped"


def test_sbatch_does_not_see_the_variables_of_another_job_but_the_clusters_configuration(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "SLURM_CPU_BIND",
        "SBATCH_ACCOUNT",
        "SRUN_CPUS_PER_TASK",
        "PMIX_RANK",
        "OMPI_COMM_WORLD_RANK",
    ):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/elsewhere.conf")
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 0
    environ = place.given("sbatch")["environ"]
    assert isinstance(environ, dict)
    assert environ["SLURM_CONF"] == "/etc/elsewhere.conf"
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


def test_a_job_does_not_submit_another(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert main([*SUBMIT, "--image", "none", "train.py"]) == 2
    assert "env -u SLURM_JOB_ID" in capsys.readouterr().err
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
