"""`hpcdl horovod`: which Horovod is good, what an interpreter is asked, what a user reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import List, Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch import horovod
from hpcdl.launch.horovod_build import read_horovod, read_target
from hpcdl.launch.horovod_patch import Patches
from hpcdl.launch.horovod_recipe import Horovod, Mpi, Recipe, TensorFlow, Tools

PYTHON = Path("/env/bin/python")
GOOD = Horovod("0.28.1", "/env/lib/horovod", "2.15.1", mpi=True, gloo=True)
HERE = TensorFlow("2.15.1", Path("/none"), None)


@pytest.mark.parametrize("built_for", ["2.15.1", "2.15.0", "2.15.0+nv23.11", None])
def test_a_horovod_of_the_same_release_that_loads_is_good(built_for: Optional[str]) -> None:
    verdict = horovod.judge(PYTHON, HERE, dataclasses.replace(GOOD, tensorflow=built_for))
    assert verdict.is_good


@pytest.mark.parametrize(
    ("installed", "problem"),
    [
        (None, "Horovod is missing in /env/bin/python"),
        (
            dataclasses.replace(GOOD, tensorflow="2.12.0", error="undefined symbol"),
            "Horovod 0.28.1 was built for TensorFlow 2.12.0; this one is 2.15.1",
        ),
        (
            dataclasses.replace(GOOD, error="libmpi.so.40: no"),
            "Horovod 0.28.1 does not load: libmpi.so.40: no",
        ),
        (
            dataclasses.replace(GOOD, mpi=False, gloo=False),
            "Horovod 0.28.1 was built with neither MPI nor Gloo",
        ),
    ],
)
def test_a_horovod_that_cannot_be_used_is_named_with_a_cure(
    installed: Optional[Horovod], problem: str
) -> None:
    verdict = horovod.judge(PYTHON, HERE, installed)
    assert verdict.problem == problem
    assert "hpcdl horovod install" in verdict.cure


def test_without_tensorflow_the_cure_is_to_install_that_first() -> None:
    assert horovod.judge(PYTHON, None, GOOD).cure.startswith("pip install tensorflow")


def fake_python(folder: Path, script: str) -> Path:
    """An interpreter whose answers are given: the process boundary. $* are the sections asked for."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nshift 2\n{script}\n")
    path.chmod(0o755)
    return path


ABOUT = '{"platform": "p", "libc": "l", "prefix": "/env", "site_packages": "/env/lib"}'
TENSORFLOW = '{"version": "2.15.1", "include": "/inc", "cuda": null}'


def test_a_horovod_that_crashes_python_is_an_error_of_that_horovod(tmp_path: Path) -> None:
    script = f"""case "$*" in
        python) echo '{{"python": {ABOUT}}}' ;;
        tensorflow) echo 'noise of a plug-in'; echo '{{"tensorflow": {TENSORFLOW}}}' ;;
        horovod) kill -SEGV $$ ;;
    esac"""
    found = read_target(fake_python(tmp_path, script))
    assert found.tensorflow == TensorFlow("2.15.1", Path("/inc"), None)
    assert found.horovod is not None
    assert found.horovod.error == "it ended with signal 11 and no answer while asked for horovod"


def test_a_tensorflow_that_does_not_load_is_bad_input(tmp_path: Path) -> None:
    script = f"""echo '{{"python": {ABOUT}, "tensorflow": {{"error": "ImportError: libcuda"}}}}'"""
    with pytest.raises(BadInput, match="TensorFlow must load in .*; it says: ImportError: libcuda"):
        read_target(fake_python(tmp_path, script))


@pytest.mark.parametrize("name", ["absent", "not-python"])
def test_what_is_no_interpreter_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "not-python").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "not-python").chmod(0o755)
    with pytest.raises(BadInput, match="--python must name a Python interpreter"):
        read_target(tmp_path / name)


def test_an_import_that_fails_early_still_gives_a_horovod() -> None:
    assert read_horovod({"error": "ImportError: x"}).error == "ImportError: x"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "ACTION"),
        (["instal"], "invalid choice: 'instal'"),
        (["check", "--force"], "unrecognized arguments: --force"),
    ],
)
def test_wrong_arguments_are_one_line(argv: List[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        horovod.main(argv)


def test_a_kept_horovod_without_mpi_is_told_that_mpi_is_here() -> None:
    tools = Tools(None, Mpi("openmpi", "5.0.11", Path("/env/bin/mpicxx")), None, None)
    without = dataclasses.replace(GOOD, mpi=False)
    assert horovod.render_kept(without, tools).endswith("--force builds it with MPI too (openmpi 5.0.11)")
    assert horovod.render_kept(GOOD, tools).endswith(
        ", built with MPI, Gloo, works here already: kept (--force builds another)"
    )


def test_the_plan_tells_source_options_and_notes() -> None:
    recipe = Recipe("some-key", {"HOROVOD_WITHOUT_MPI": "1"}, Patches(without_xla=True), ("no MPI found",))
    assert horovod.render_plan(recipe, None, Path("/usr/bin/c++")).splitlines() == [
        "wheel    some-key",
        "source   the source distribution of Horovod 0.28.1, built with /usr/bin/c++",
        "options  HOROVOD_WITHOUT_MPI=1",
        "patch    debug information, and a copy of Gloo that nothing links, left out: half the time",
        "patch    the library is named for no Python: one wheel serves them all",
        "patch    XLA operations left out: this TensorFlow ships no headers for them",
        "note     no MPI found",
    ]
    assert "source   the cache: /w.whl" in horovod.render_plan(recipe, Path("/w.whl"), None)


needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="no TensorFlow in this environment"
)


@needs_tensorflow
def test_check_says_of_this_environment_what_the_packages_say() -> None:
    command = [sys.executable, "-m", "hpcdl", "horovod", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["ok"]
    assert answer["horovod"]["version"] == metadata.version("horovod")
    assert answer["horovod"]["tensorflow"] == answer["tensorflow"]["version"]
    assert answer["horovod"]["mpi"]
    assert answer["horovod"]["gloo"]


@needs_tensorflow
def test_install_keeps_a_horovod_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert horovod.main(["install", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "kept"


@needs_tensorflow
def test_a_dry_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDL_CACHE", str(tmp_path / "cache"))
    assert horovod.main(["install", "--force", "--dry-run"]) == 0
    assert "built with" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
