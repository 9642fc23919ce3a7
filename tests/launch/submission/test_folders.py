"""What has become of a job, from what its keeper wrote, Slurm's queue, and whether its process lives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Optional

import pytest

from hpcdl.common.rank_start import log_path
from hpcdl.launch.cli import main
from hpcdl.launch.processes import Process
from hpcdl.launch.submission import jobs
from hpcdl.launch.submission.folders import Submitted, ask_queue, state_of
from hpcdl.launch.submission.state import write_state

NOT_LISTED: Dict[str, str] = {}


def submitted(folder: Path, executor: str, **further: Any) -> Submitted:
    return Submitted("7", SimpleNamespace(folder=str(folder), executor=executor), **further)  # type: ignore[arg-type]


def keep(folder: Path, word: Optional[str]) -> None:
    if word is not None:
        write_state(folder, {"state": word})


@pytest.mark.parametrize(
    ("kept", "is_alive", "word"),
    [
        (None, True, "running"),
        ("running", True, "running"),
        ("requeued", True, "running"),  # submitit starts its keeper again
        ("cancelled", True, "cancelled"),  # its keeper is leaving
        ("done", False, "done"),
        (None, False, "lost"),
        ("running", False, "lost"),
    ],
)
def test_a_job_of_this_machine_is_what_its_keeper_says_unless_nobody_keeps_it(
    kept: Optional[str], is_alive: bool, word: str, tmp_path: Path
) -> None:
    keep(tmp_path, kept)
    job = submitted(tmp_path, "local", process=Process(7, 1))
    assert state_of(job, NOT_LISTED, lambda process: is_alive).word == word


@pytest.mark.parametrize(
    ("kept", "queue", "word"),
    [
        ("running", {"7": "PENDING|Resources||"}, "waiting"),
        ("running", {"7": "RUNNING|None|1:00|v[005-006]"}, "running"),
        ("requeued", {"7": "REQUEUE_HOLD|launch failed requeued held|0:00|"}, "waiting"),
        ("running", {"7": "SIGNALING|None|1:00|n1"}, "running"),
        ("done", {"7": "COMPLETING|None|1:00|n1"}, "running"),
        ("running", {"8": "RUNNING|None|1:00|n1"}, "lost"),
        ("running", {"7": "TIMEOUT|TimeLimit|1:00|n1"}, "lost"),
        ("running", {"7": "OUT_OF_MEMORY|OutOfMemory|1:00|n1"}, "lost"),
        ("done", {"7": "COMPLETED|None|1:00|n1"}, "done"),
        ("running", {"7": "SUSPENDED|None|1:00|n1"}, "waiting"),
        ("done", None, "done"),
        ("running", None, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_a_job_of_slurms_is_over_only_if_slurm_or_its_keeper_says_so(
    kept: Optional[str], queue: Optional[Dict[str, str]], word: str, tmp_path: Path
) -> None:
    keep(tmp_path, kept)
    state = state_of(submitted(tmp_path, "slurm"), queue)
    assert state.word == word
    assert state.is_over == (word in ("done", "lost"))


@pytest.mark.parametrize("text", ["", "null", "5", "[1]", '"done"'])
def test_a_state_that_is_damaged_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(text)
    assert state_of(submitted(tmp_path, "slurm"), NOT_LISTED).word == "lost"


def test_a_job_that_another_machine_looks_after_is_not_lost(tmp_path: Path) -> None:
    keep(tmp_path, "running")
    state = state_of(submitted(tmp_path, "local", elsewhere="login2"), NOT_LISTED)
    assert (state.word, state.is_over) == ("unknown", False)
    assert "login2" in state.words


@pytest.mark.parametrize("squeue", ["exit 1", None])
def test_a_queue_that_gives_no_answer_is_not_an_empty_one(
    squeue: Optional[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "squeue", squeue)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_queue([submitted(tmp_path, "slurm")]) is None
    assert ask_queue([submitted(tmp_path, "local")]) == {}
    stand_in(tmp_path, "squeue", "echo '7|RUNNING|None|1:00|n1'")
    assert ask_queue([submitted(tmp_path, "slurm")]) == {"7": "RUNNING|None|1:00|n1"}


def test_what_the_user_lets_slurms_commands_leave_out_hides_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = ("SQUEUE_STATES", "SQUEUE_PARTITION", "SQUEUE_ACCOUNT", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
    for name in (*left_out, "SCANCEL_STATE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "kept")
    seen = "env | grep -E '^(SQUEUE|SCANCEL|SLURM)_' | tr '\\n' ' '"
    stand_in(tmp_path, "squeue", f'echo "7|$({seen})|$@"')
    stand_in(tmp_path, "scancel", f"{seen} > {tmp_path}/cancelled")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    queue = ask_queue([submitted(tmp_path, "slurm")])
    assert queue is not None
    assert queue["7"].startswith("SLURM_CONF=kept |")
    assert "-t all" in queue["7"]
    monkeypatch.setattr(jobs, "find_job", lambda name, parent: submitted(tmp_path, "slurm"))
    assert main(["cancel", "7"]) == 0
    assert (tmp_path / "cancelled").read_text() == "SLURM_CONF=kept "


def test_of_a_lost_job_slurms_own_word_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "running")
    for name, line in (
        ("squeue", "exit 0"),
        ("sacct", "exit 1"),
        ("scontrol", "echo JobId=7 JobState=NODE_FAIL"),
    ):
        stand_in(tmp_path, name, line)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    layout = SimpleNamespace(world_size=2, num_nodes=1, time_limit_min=5, launcher="gloo", gpus_per_node=0)
    job = SimpleNamespace(
        folder=str(tmp_path), executor="slurm", name="train", site="box", log_dir=tmp_path, layout=layout
    )
    monkeypatch.setattr(jobs, "find_job", lambda name, parent: Submitted("7", job))  # type: ignore[arg-type]
    assert main(["jobs", "7"]) == 0
    assert "Slurm says NODE_FAIL" in capsys.readouterr().out


def test_a_reader_who_leaves_ends_the_logs_of_a_job_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_path(tmp_path, 0).write_text("epoch 1\n")
    job = SimpleNamespace(
        folder=str(tmp_path), executor="local", log_dir=tmp_path, layout=SimpleNamespace(world_size=1)
    )
    monkeypatch.setattr(jobs, "find_job", lambda name, parent: Submitted("7", job))  # type: ignore[arg-type]
    monkeypatch.setattr(jobs, "is_said_to_be_over", lambda job: pytest.fail("it went on"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["logs", "-f", "7"]) == 1


@pytest.mark.parametrize("squeue", ["exit 1", "exit 0"])
def test_slurm_is_told_to_cancel_whatever_squeue_says(
    squeue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, "running")
    stand_in(tmp_path, "squeue", squeue)
    stand_in(tmp_path, "scancel", f'echo "$@" > {tmp_path}/cancelled')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "find_job", lambda name, parent: submitted(tmp_path, "slurm"))
    assert main(["cancel", "7"]) == 0
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_job_of_another_machine_is_cancelled_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "running")
    monkeypatch.setattr(
        jobs, "find_job", lambda name, parent: submitted(tmp_path, "local", elsewhere="login2")
    )
    assert main(["cancel", "7"]) == 2
    assert "runs on login2; cancel it there" in capsys.readouterr().err


def stand_in(folder: Path, name: str, line: Optional[str]) -> None:
    if line is not None:
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
