"""The interactive way in: what is asked of Slurm, and what runs there."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import pytest

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.launch.cli import main
from hpcdl.launch.shell import Way, plan_shell
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.submission.lib import keep_lib, lib_folder
from hpcdl.launch.submission.words import JobOptions

NO_FILES = Path("no-files-of-a-user")


def _way(site: str, **options: object) -> Way:
    return plan_shell(
        load_profile(site, NO_FILES), JobOptions(**options), "abc", "/i/tf.sif", "/w", "/home/me/lib"
    )  # type: ignore[arg-type]


def test_a_site_with_a_command_of_its_own_is_asked_by_it_and_the_rest_is_typed() -> None:
    way = _way("bridges2", time="1:00:00")
    first, second = way.lines()
    assert first.startswith("interact -A abc -p GPU -N 1 -t 1:00:00")
    assert first.endswith("--gres=gpu:v100-32:8")
    assert second.startswith("singularity exec --nv --bind /ocean")
    assert second.endswith("bash")
    assert way.is_typed


def test_elsewhere_salloc_starts_the_shell_in_a_step_with_all_that_the_job_has() -> None:
    (line,) = _way("delta", time="30", mem="0", partition="gpuA100x4").lines()
    allocate, _, enter = line.partition(" srun ")
    assert allocate.startswith("salloc -A abc -p gpuA100x4 -N 1 -t 0:30:00")
    assert "--gpus-per-node=4 --cpus-per-task=64 --mem=0" in allocate
    assert "--overlap --cpu-bind=none --gpu-bind=none" in enter
    assert " --pty apptainer exec --nv " in enter
    assert "PYTHONNOUSERSITE=1 bash" in enter


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mem": "9G"}, "--mem=9G"),
        ({"cpus_per_task": 3}, "--cpus-per-task=3"),
        ({"constraint": "a"}, "--constraint=a"),
        ({"exclusive": True}, "--exclusive"),
        ({"reservation": "a"}, "--reservation=a"),
        ({"sbatch_arg": ("--licenses=a",)}, "--sbatch-arg=--licenses=a"),
    ],
)
def test_a_sites_own_command_is_not_asked_for_what_it_may_not_take(
    options: Dict[str, object], word: str
) -> None:
    with pytest.raises(BadInput) as caught:
        _way("bridges2", time="30", **options)
    assert str(caught.value) == (
        f"PSC Bridges-2 has interact in place of salloc, which may not take all of its words; received {word}; leave it"
        " out, or add to what --dry-run prints what interact has for it"
    )


def test_a_sites_own_command_needs_no_memory_and_cores_that_the_profile_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "own.toml").write_text(
        'scheduler = "slurm"\ninteractive = "mine"\n[container]\nkind = "none"\n[queues.q]\npartition = "q"\n'
    )
    profile = load_profile("own", tmp_path)
    way = plan_shell(profile, JobOptions(time="30", partition="q"), None, None, "/w", "/home/me/lib")
    assert way.lines()[0] == "mine -p q -N 1 -t 0:30:00 --ntasks-per-node 1"


def test_of_the_hosts_packages_the_shell_sees_the_half_of_hpcdl_that_ranks_need(tmp_path: Path) -> None:
    package = Path(hpcdl.__file__).resolve().parent
    lib = lib_folder(package, {"HPCDL_CACHE": str(tmp_path)})
    for _ in range(2):
        keep_lib(package, lib)
    assert sorted(path.name for path in lib.iterdir()) == ["__main__.py", "hpcdl"]
    assert sorted(path.name for path in (lib / "hpcdl").iterdir()) == ["__init__.py", "common", "runtime"]
    assert [path.name for path in lib.parent.iterdir()] == [lib.name]
    (line,) = _way("delta", time="30", mem="0", partition="gpuA100x4").lines()
    assert "--bind /home/me/lib" in line
    assert "PYTHONPATH=/home/me/lib" in line
    assert str(package.parent) not in line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--site", "bridges2", "-t", "30"], "must name an account"),
        (["--site", "bridges2", "-t", "30", "-A", "a", "-p", "GPUU", "--dry-run"], "did you mean GPU"),
        (["--site", "delta", "-A", "a", "-t", "30", "--mem", "0", "--image", "/none.sif"], "must exist here"),
    ],
)
def test_bad_input_is_refused(
    argv: List[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["shell", *argv]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_inside_a_job_no_other_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert main(["shell", "--site", "bridges2", "-t", "30", "-A", "a"]) == 2
    assert "inside job 7 already" in capsys.readouterr().err
