"""A visit to the doctor on a login node, with programs that stand in for Slurm's."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.doctor import command
from hpcdl.launch.doctor.examination import DoctorOptions, Examination
from hpcdl.launch.doctor.verdict import Finding
from hpcdl.launch.submission.words import JobOptions
from hpcdl.launch.tried_images import read_ways
from tests.launch.doctor.facts import inside

ROOT = Path(__file__).resolve().parents[3]

SBATCH = """#!/bin/sh
[ "$1" = --version ] && { echo "slurm 24.05.1"; exit; }
if grep -q "account=wrong"; then
  echo "sbatch: error: Invalid account or account/partition combination specified" >&2
  echo "allocation failure: Invalid account or account/partition combination specified" >&2
  exit 1
fi
echo "sbatch: Job 7 to start at 2026-11-28T20:00:00 using 1 processors on nodes n1 in partition gpu"
"""

Visit = Callable[..., List[Finding]]


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    for name, text in (
        ("sbatch", SBATCH),
        ("scontrol", "#!/bin/sh\nexit 1\n"),
        ("srun", "#!/bin/sh\nexit 1\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "hpcdl").mkdir()
    (tmp_path / "hpcdl" / "config.toml").write_text(
        f'shared_folder = "{tmp_path}"\n'
    )  # though it may be in /tmp
    monkeypatch.chdir(tmp_path)

    def go(site: str, **words: Any) -> List[Finding]:
        options = DoctorOptions(site=site, image="none", python=sys.executable, quick=True)
        found, _ = Examination(options, JobOptions(**words), dict(os.environ)).run(with_nodes=False)
        return found

    return go


def _by_check(findings: List[Finding], where: str = "host") -> Dict[str, Finding]:
    return {one.check: one for one in findings if one.where == where}


@pytest.mark.parametrize(
    ("site", "said", "cure"),
    [("generic_slurm", "cores", "--cpus-per-task"), ("delta", "memory", "--mem 60G")],
)
def test_what_a_job_still_lacks_is_a_finding_beside_those_of_the_host(
    visit: Visit, site: str, said: str, cure: str
) -> None:
    found = visit(site)
    host = _by_check(found)
    assert {"slurm", "folder", "inherited"} <= set(host)
    assert (host["layout"].status, said in host["layout"].evidence) == ("failed", True)
    assert cure in host["layout"].cure
    assert [(one.where, one.evidence) for one in found[-1:]] == [("image", "not tried")]


def test_slurm_itself_is_asked_whether_it_would_take_such_a_job(visit: Visit) -> None:
    words = {"cpus_per_task": 1, "mem": "0", "account": "abc"}
    found = visit("generic_slurm", **words)
    host = _by_check(found)
    assert host["layout"].evidence.startswith("single: 1 node x 1 process")
    assert (host["submission"].status, "Job 7 to start" in host["submission"].evidence) == ("ok", True)
    assert "python" in _by_check(found, "image")


def test_an_account_that_slurm_does_not_know_is_told_before_a_job(visit: Visit) -> None:
    found = visit("generic_slurm", cpus_per_task=1, mem="0", account="wrong")
    host = _by_check(found)
    assert host["submission"].status == "failed"
    assert "Invalid account or account/partition combination" in host["submission"].evidence
    assert "--account" in host["submission"].cure


#: What runs an image, and says by the last words what an image without Gloo would.
SINGULARITY = """#!/bin/sh
[ "$1" = --version ] && {{ echo "singularity-ce version 4.1"; exit; }}
case "$*" in
  *common.probe*) cat {folder}/around.json;;
  *"horovod mpi") cat {folder}/horovod.json;;
  *) cat {folder}/others.json;;
esac
"""


def test_an_image_without_gloo_is_well_where_its_ranks_can_meet_through_mpi(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = inside()
    facts["horovod"].update(gloo=False)
    facts["mpi"]["version"] = "MPICH Version: 4.1"
    sections = {
        "around": facts["around"],
        "horovod": {name: facts[name] for name in ("horovod", "mpi")},
        "others": {name: facts[name] for name in ("python", "keras", "strangers", "tensorflow")},
    }
    for name, section in sections.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(section))
    (tmp_path / "singularity").write_text(SINGULARITY.format(folder=tmp_path))
    (tmp_path / "singularity").chmod(0o755)
    (tmp_path / "tf.sif").touch()
    monkeypatch.setenv("HPCDL_CACHE", str(tmp_path / "cache"))
    options = DoctorOptions(site="lumi", image=str(tmp_path / "tf.sif"))
    asked = JobOptions(account="abc", mem="0", np=2, gpus_per_node="0", cpus_per_task=1)
    found, _ = Examination(options, asked, dict(os.environ)).run(with_nodes=False)
    assert _by_check(found, "image")["horovod"].status == "ok"
    assert read_ways(str(tmp_path / "tf.sif"), os.environ) == ("mpi",)


@pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="needs Horovod")
def test_a_job_on_this_machine_is_waited_for_until_its_ranks_have_met(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "PWD": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = ["doctor", "--site", "local", "--nodes", "1", "--np", "2", "--oversubscribe", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl", *words],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tree = json.loads(done.stdout)
    said = {one["check"]: one["evidence"] for one in tree["findings"] if one["where"] == "nodes"}
    assert "2 ranks met through" in said["horovod"]
    assert "on CPUs" in said["bandwidth"]
    assert tree["facts"]["nodes"]["state"]["state"] == "done"


def test_a_report_that_cannot_be_written_is_refused_before_the_visit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Examination", None)
    with pytest.raises(BadInput, match="--report must name a file that can be written"):
        command.main(["--report", str(tmp_path)])
