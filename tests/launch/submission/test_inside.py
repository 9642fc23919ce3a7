"""``hpcdl train --image`` in a Slurm job that the user holds: what srun is given. srun is a stand-in on PATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, List

import pytest

from hpcdl.launch.cli import main

SITE = """
scheduler = "slurm"
[container]
kind = "apptainer"
gpu_flags = ["--nv"]
binds = ["/scratch"]
"""
STAND_IN = """#!{python}
import json, os, sys
with open({path!r}, "w") as file:
    json.dump({{"argv": sys.argv[1:], "environ": dict(os.environ)}}, file)
"""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for srun writes what it was given: here is an allocation of two nodes."""
    sites = tmp_path / "config" / "hpcdl" / "sites"
    sites.mkdir(parents=True)
    (sites / "small.toml").write_text(SITE)
    (tmp_path / "srun").write_text(STAND_IN.format(python=sys.executable, path=str(tmp_path / "given.json")))
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "squashfuse_ll").write_text("#!/bin/sh\n")
    (tmp_path / "squashfuse_ll").chmod(0o755)
    (tmp_path / "tf.sif").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").touch()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PWD", str(tmp_path / "work"))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "HPCDL_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HPCDL_CACHE": str(tmp_path / "cache"),
        "HPCDL_END_TIME": "2000000000",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
        "SLURM_GPUS_PER_NODE": "4",
        "SLURM_NTASKS": "8",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "given.json"


IN_IMAGE = ["train", "--site", "small", "--image", "../tf.sif"]


def test_the_ranks_are_started_inside_the_image_with_hpcdl_alone(given: Path) -> None:
    home = given.parent
    assert main([*IN_IMAGE, "--seed=3", "train.py", "--text", "a $b"]) == 0
    told = json.loads(given.read_text())
    argv: List[str] = told["argv"]
    assert {"--nodes=2", "--ntasks=8", "--mpi=none"} <= set(argv)
    assert argv[argv.index("apptainer") :][:3] == ["apptainer", "exec", "--nv"]
    bound = [argv[at + 1] for at, word in enumerate(argv) if word == "--bind"]
    (lib,) = (home / "cache" / "lib").iterdir()
    assert {"/scratch", str(home / "work"), str(lib)} <= set(bound)
    assert f"PYTHONPATH={lib}" in argv
    assert "HPCDL_SEED=3" in argv
    assert argv[argv.index(str(home / "tf.sif")) + 1 :][:3] == ["env", "-u", "PYTHONHOME"]
    assert argv[-8:] == ["python3", "-m", "hpcdl.runtime", "--seed=3", "--", "train.py", "--text", "a $b"]
    assert sys.executable not in argv
    # The program behind the image stays when Slurm signals all that is in the step.
    first = Path(told["environ"]["PATH"].split(os.pathsep)[0])
    assert "trap ''" in (first / "squashfuse_ll").read_text()
    assert told["environ"]["HPCDL_IMAGE"] == str(home / "tf.sif")


def test_a_dry_run_needs_no_tensorflow_and_writes_nothing(
    given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*IN_IMAGE, "--dry-run", "train.py"]) == 0
    assert "apptainer exec --nv" in capsys.readouterr().out
    assert not given.exists()
    assert not (given.parent / "cache").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--site", "small", "--image", "no.sif"], "the image must exist here"),
        (["--site", "smal", "--image", "../tf.sif"], "did you mean small"),
        (["--site", "generic_slurm", "--image", "../tf.sif"], "not known to run images"),
    ],
)
def test_bad_input_is_refused(
    words: List[str], said: str, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, "train.py"]) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["train.py"]


def test_outside_of_a_job_an_image_is_for_submit(
    given: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert main([*IN_IMAGE, "train.py"]) == 2
    assert "use hpcdl submit or hpcdl shell" in capsys.readouterr().err
