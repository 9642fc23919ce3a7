"""Every command of docs/launching.md is one that hpcdl takes; submissions are laid out, in a dry run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import List

import pytest

from hpcdl.launch.cli import COMMANDS, find_command, main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "launching.md").read_text()
SHOWN = [shlex.split(line)[1:] for line in TEXT.splitlines() if line.startswith("hpcdl ")]
SITE = """
scheduler = "slurm"
default_queue = "q"
[container]
kind = "apptainer"
[queues.q]
partition = "q"
cores_per_node = 8
whole_nodes = true
"""


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "submit"], ids=" ".join)
def test_a_submission_of_the_docs_can_be_made(
    argv: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = tmp_path / "hpcdl" / "sites"
    sites.mkdir(parents=True)
    (sites / "mycluster.toml").write_text(SITE)
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["submit", "--dry-run", *(["--oversubscribe"] if "local" in argv else []), *argv[1:]]) == 0
    shown = capsys.readouterr()
    assert ("hpcdl.runtime" in shown.out) if "local" in argv else shown.out.startswith("#!/bin/bash")


def test_all_commands_of_the_docs_exist() -> None:
    assert {"submit", "logs", "jobs", "cancel", "site", "train"} <= {argv[0] for argv in SHOWN}
    for argv in SHOWN:
        assert find_command(argv[0], COMMANDS)
