"""``hpcdl train`` over the nodes of a Slurm job that the user holds: how often srun is called. srun is a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, List, Mapping, Sequence

import pytest

from hpcdl.launch.cli import main

SITE = """
scheduler = "slurm"
[container]
kind = "apptainer"
"""
STAND_IN = """#!{python}
import json, os, sys
with open({path!r}, "a") as file:
    print(json.dumps([sys.argv[1:], os.environ.get("HPCDL_FRESH")]), file=file)
with open({path!r} + ".end", "w") as file:
    file.write(os.environ.get("HPCDL_END_TIME", ""))
print("srun: error: n1: task 0: " + os.environ["STAND_IN_says"])
sys.exit(1)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for srun writes a line for each call: here is an allocation of two nodes."""
    sites = tmp_path / "config" / "hpcdl" / "sites"
    sites.mkdir(parents=True)
    (sites / "small.toml").write_text(SITE)
    calls = tmp_path / "calls"
    for name, text in {
        "srun": STAND_IN.format(python=sys.executable, path=str(calls)),
        "squeue": "#!/bin/sh\nexit 1\n",  # a Slurm that does not say when the job ends
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "tf.sif").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").touch()
    monkeypatch.chdir(tmp_path / "work")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "HPCDL_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HPCDL_CACHE": str(tmp_path / "cache"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
    }.items():
        monkeypatch.setenv(name, value)
    return calls


@pytest.mark.parametrize(
    "words", [[], ["--site", "small", "--image", "../tf.sif"]], ids=["no image", "image"]
)
def test_a_run_whose_rank_was_killed_is_started_again_but_not_afresh(
    words: List[str], calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STAND_IN_says", "Killed")
    assert main(["train", *words, "--restarts", "2", "--fresh", "train.py"]) == 137
    made: List[Any] = [json.loads(line) for line in calls.read_text().splitlines()]
    assert [fresh for _, fresh in made] == ["1", None, None]
    for argv, fresh in made:
        assert any("--fresh" in word or "HPCDL_FRESH" in word for word in argv) is (fresh is not None)
    said = capsys.readouterr().err
    assert said.count("starting again from the last checkpoint, since rank 0 on ") == 2
    assert "(restarts left: 0)" in said


@pytest.mark.parametrize(
    ("users", "slurms", "told"),
    [
        ("", "", ""),
        ("", "1800000000", "1800000000"),
        ("1790000000", "1800000000", "1790000000"),
        ("1790000000.5", "1800000000", "1790000000.5"),
    ],
)
def test_the_ranks_are_told_the_end_that_the_user_names_else_slurms(
    users: str, slurms: str, told: str, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_says", "Killed")
    monkeypatch.setenv("HPCDL_END_TIME", users)
    monkeypatch.setenv("SLURM_JOB_END_TIME", slurms)
    assert main(["train", "train.py"]) == 137
    assert Path(f"{calls}.end").read_text() == told


def test_a_run_on_the_only_node_of_a_job_is_told_the_end_too(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: List[Any] = []

    def run_alone(argv: Sequence[str], environ: Mapping[str, str]) -> int:
        told.append(environ.get("HPCDL_END_TIME"))
        return 0

    monkeypatch.setattr("hpcdl.launch.local.run_alone", run_alone)
    for name, value in {
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_CPUS_PER_NODE": "8",
        "SLURMD_NODENAME": "n1",
        "SLURM_JOB_END_TIME": "1800000000",
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "train.py"]) == 0
    assert told == ["1800000000"]
    assert not calls.exists()  # without srun


def test_bad_input_that_only_the_ranks_can_see_leaves_no_logs(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_says", "Exited with exit code 2")
    assert main(["train", "--restarts", "2", "train.py"]) == 2
    assert len(calls.read_text().splitlines()) == 1
    assert sorted(os.listdir(".")) == ["train.py"]
