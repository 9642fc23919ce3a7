"""The job files in jobs/: what the layouts make of them, byte for byte; and they start what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List

import pytest

from hpcdl.launch.templates import render_all

ROOT = Path(__file__).resolve().parents[2]
FILES = render_all()
SUBMITIT = [name for name in FILES if name.endswith(".py")]
END = str(int(time.mktime((2026, 11, 24, 12, 0, 0, 0, 0, -1))))  # as squeue says it
SHELL = [name for name in FILES if not name.endswith(".py")]


@pytest.fixture
def stand_ins(tmp_path: Path) -> Dict[str, str]:
    """An environment in which srun writes its words to a file, and sbatch its script."""
    (tmp_path / "srun").write_text(
        '#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done > "$SEEN/srun.txt"\n'
        'echo "$HPCDL_END_TIME" > "$SEEN/end.txt"\nexit "${STATUS:-0}"\n'
    )
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" > "$SEEN/scontrol.txt"\n')
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 2026-11-24T12:00:00\n")
    (tmp_path / "sbatch").write_text('#!/bin/sh\ncp "$1" "$SEEN/sbatch.txt"\necho Submitted batch job 7\n')
    for name in ("srun", "squeue", "sbatch", "scontrol"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SEEN": str(tmp_path), "SLURM_JOB_ID": "7", "HPCDL": "/copy of/hpcdl"}


def test_the_files_in_the_repository_are_those_that_are_rendered() -> None:
    there = {
        str(path.relative_to(ROOT / "jobs")): path.read_text()
        for path in (ROOT / "jobs").rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert there == FILES, "write them anew: python -m hpcdl.launch.templates jobs"


@pytest.mark.parametrize("name", SHELL)
def test_a_shell_file_starts_the_ranks_with_the_users_words(
    name: str, stand_ins: Dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a b").mkdir()
    script = tmp_path / "template"
    script.write_text(FILES[name])
    done = subprocess.run(
        ["bash", str(script), "train.py", "--text", "a $b 'c'"],
        cwd=tmp_path / "a b",
        env=stand_ins,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = _lines(tmp_path / "srun.txt")
    assert words[-3:] == ["train.py", "--text", "a $b 'c'"]
    assert words[words.index("--pwd") + 1] == str(tmp_path / "a b")
    assert "PYTHONPATH=/copy of/hpcdl" in words
    assert _lines(tmp_path / "end.txt") == [END]
    assert f"--strategy={name.partition('/')[2].partition('.')[0]}".replace("interactive", "horovod") in words


@pytest.mark.parametrize("name", SUBMITIT)
def test_a_submitit_file_asks_for_what_the_batch_file_asks_for(
    name: str, stand_ins: Dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text(FILES[name])
    done = subprocess.run(
        [sys.executable, "job.py", "train.py"],
        cwd=tmp_path,
        env=stand_ins,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
    batch = FILES[name.replace("submitit_job.py", "horovod.sbatch")]
    assert _requests(_lines(tmp_path / "sbatch.txt")) == _requests(batch.splitlines())


@pytest.mark.parametrize("name", SUBMITIT)
def test_a_submitit_file_runs_the_batch_file_which_requeues(
    name: str, stand_ins: Dict[str, str], tmp_path: Path
) -> None:
    job = tmp_path / "copy of jobs" / "job.py"
    job.parent.mkdir()
    job.write_text(FILES[name])
    batch = FILES[name.replace("submitit_job.py", "horovod.sbatch")]
    (job.parent / "horovod.sbatch").write_text(batch)
    place = {"cwd": tmp_path, "env": {**stand_ins, "STATUS": "85"}, "capture_output": True, "timeout": 60}
    subprocess.run([sys.executable, str(job), "train.py", "a $b 'c'"], check=True, **place)
    submitted = subprocess.run(["bash", "sbatch.txt"], check=False, **place)
    assert submitted.returncode != 0  # so that Slurm does not take a run that failed for one that is done
    assert _lines(tmp_path / "srun.txt")[-2:] == ["train.py", "a $b 'c'"]
    assert _lines(tmp_path / "end.txt") == [END]
    assert _lines(tmp_path / "scontrol.txt") == ["requeue 7"]


def _lines(path: Path) -> List[str]:
    return path.read_text().splitlines()


def _requests(lines: List[str]) -> List[str]:
    """Picks what is asked of Slurm, without what submitit needs for itself."""
    own = ("#SBATCH --output", "#SBATCH --error", "#SBATCH --signal")
    return sorted(line for line in lines if line.startswith("#SBATCH") and not line.startswith(own))
