"""Getting an image: the commands, where their files go, and room that is checked before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.cli import main
from hpcdl.launch.image_plan import Room, folders_of, lacking, plan_build, plan_pull
from hpcdl.launch.sites.profile import Container

APPTAINER = Container(kind="apptainer")


def test_the_users_folders_come_before_the_profiles_and_those_before_the_usual() -> None:
    container = Container(kind="apptainer", cache="$WORK/c", scratch="${FAST}/s")
    environ = {"HOME": "/h", "WORK": "/w", "FAST": "/f"}
    assert folders_of(container, environ) == ("/w/c", "/f/s")
    mine = {**environ, "SINGULARITY_CACHEDIR": "/mine", "APPTAINER_TMPDIR": "/fast"}
    assert folders_of(container, mine) == ("/mine", "/fast")
    assert folders_of(APPTAINER, {"HOME": "/h"}) == ("/h/.apptainer/cache", "/tmp")


def test_a_folder_that_is_only_known_elsewhere_is_refused() -> None:
    with pytest.raises(BadInput, match=r"container.cache of the profile is \$WORK/c"):
        folders_of(Container(kind="apptainer", cache="$WORK/c"), {"HOME": "/h"})


def test_an_old_singularity_is_told_in_its_own_words() -> None:
    environ = {"HOME": "/h"}
    plan = plan_pull(Container(kind="singularity"), "docker://a:1", "/i/a.sif", environ, room_gb=40)
    assert plan.argv == ("singularity", "pull", "/i/.a.part.sif", "docker://a:1")
    assert plan.environ == {
        "SINGULARITY_CACHEDIR": "/h/.apptainer/cache",
        "SINGULARITY_TMPDIR": "/tmp",
    }
    assert plan.needs_gb == {"/tmp": 40, "/i": 10, "/h/.apptainer/cache": 10}


def test_a_build_sees_the_cache_of_wheels_and_takes_further_words(tmp_path: Path) -> None:
    environ = {"HOME": "/h", "HPCDL_CACHE": str(tmp_path)}
    plan = plan_build(
        APPTAINER, "a.def", "/i/a.sif", environ, room_gb=5, further=["--fakeroot", "--arch=amd64"]
    )
    assert plan.argv[:4] == ("apptainer", "build", "--bind", f"{tmp_path}:/mnt")
    assert plan.argv[-4:] == ("--fakeroot", "--arch=amd64", "/i/.a.part.sif", "a.def")
    assert plan.result == "/i/a.sif"


def test_sites_with_images_by_name_pull_by_name() -> None:
    shifter = plan_pull(Container(kind="shifter"), "docker://a:1", None, {}, room_gb=40)
    assert (shifter.argv, shifter.result) == (("shifterimg", "pull", "a:1"), None)
    podman = plan_pull(Container(kind="podman-hpc"), "a:1", None, {}, room_gb=40)
    assert podman.argv == ("podman-hpc", "pull", "a:1")
    with pytest.raises(BadInput, match="podman-hpc keeps images by name"):
        plan_pull(Container(kind="podman-hpc"), "a:1", "/i/a.sif", {}, room_gb=40)
    with pytest.raises(BadInput, match="build makes files for singularity and apptainer"):
        plan_build(Container(kind="shifter"), "a.def", "/i/a.sif", {}, room_gb=40)


def test_folders_on_one_file_system_need_the_sum() -> None:
    rooms: Dict[str, Room] = {"/a": Room(1, 30.0), "/b": Room(1, 30.0), "/c": Room(2, 5.0)}
    assert lacking({"/a": 20, "/b": 10, "/c": 5}, rooms.__getitem__) == []
    short = lacking({"/a": 20, "/b": 11, "/c": 6}, rooms.__getitem__)
    assert short == [
        "/a and /b: 30.0 GB free, about 31 GB needed",
        "/c: 5.0 GB free, about 6 GB needed",
    ]


def _with_program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(folder / "cache"))
    monkeypatch.setenv("APPTAINER_TMPDIR", str(folder / "scratch"))
    monkeypatch.chdir(folder)


PULL: List[str] = ["container", "pull", "--site", "local", "docker://a:1", "a.sif"]


def test_an_image_appears_only_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_program(tmp_path, monkeypatch, 'echo half > "$2"; test -d "$APPTAINER_TMPDIR" && exit ${FAILS:-0}')
    monkeypatch.setenv("FAILS", "3")
    assert main([*PULL, "--room", "1"]) == 1
    assert not [*tmp_path.glob("*.sif"), *tmp_path.glob(".*.sif")]
    monkeypatch.setenv("FAILS", "0")
    assert main([*PULL, "--room", "1"]) == 0
    assert (tmp_path / "a.sif").read_text() == "half\n"


@pytest.mark.parametrize(
    ("words", "apt", "said"),
    [
        ([], "echo 'sid http://a/debian'; echo 'bookworm http://b/debian'", "MirrorURL: http://b/debian"),
        (["--mirror", "http://c/debian"], "echo 'bookworm http://b/debian'", "MirrorURL: http://c/debian"),
        ([], "echo 'jammy http://a/ubuntu'", "MirrorURL: {{ mirror }}"),
    ],
    ids=["apt", "asked", "unknown"],
)
def test_debian_comes_from_where_apt_takes_it_or_the_user_says(
    words: List[str],
    apt: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _with_program(tmp_path, monkeypatch, "touch ran")
    (tmp_path / "bin" / "apt-get").write_text(f"#!/bin/sh\n{apt}\n")
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    build = ["container", "build", "--site", "local", "--room", "1", "cpu", "a.sif", *words]
    assert main([*build, "--dry-run"]) == 0
    assert said in capsys.readouterr().err.splitlines()
    if "{{" in said:
        assert main(build) == 2
        assert "pass --mirror URL" in capsys.readouterr().err
        assert not (tmp_path / "ran").exists()


def test_a_definition_file_may_be_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_program(tmp_path, monkeypatch, "touch ran")
    (tmp_path / "mine.def").write_bytes("# für mich\nBootstrap: docker\nFrom: a:1\n".encode("latin-1"))
    build = ["container", "build", "--site", "local", "--room", "1", "mine.def", "a.sif"]
    assert main([*build, "--dry-run"]) == 0


def test_bad_input_is_one_line_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_program(tmp_path, monkeypatch, "touch ran")
    (tmp_path / "wrong.def").write_text("Bootstrap: docker\n")
    for argv, said in (
        ([*PULL, "--room", "99999999"], "an image needs room"),
        (["container", "build", "--site", "local", "cpuu", "a.sif"], "cpu"),
        (["container", "build", "--site", "local", "none.def", "a.sif"], "DEF must be a file that is there"),
        (["container", "build", "--site", "local", "wrong.def", "a.sif"], "needs From"),
        (["container", "pull", "--site", "local", "docker://a:1"], "needs the file to make"),
        (["container", "pull", "--site", "local", "docker://a:1", "wrong.def"], "must not be there yet"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1
    assert main([*PULL, "--dry-run"]) == 0
    assert "apptainer pull" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "wrong.def"]
