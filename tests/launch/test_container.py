"""The argv that enters an image, and the choice of the image."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.container import deaf_file_system, describe_image, enter_argv, find_image, outermost
from hpcdl.launch.sites.profile import Container

SINGULARITY = Container(kind="singularity", gpu_flags=("--nv",), binds=("/ocean",))


def test_singularity_gets_gpus_folders_and_the_working_folder() -> None:
    argv = enter_argv(
        SINGULARITY, "/i/tf.sif", folders=["/w/me", "/w/me/jobs", "/ocean/x"], cwd="/w/me", with_gpus=True
    )
    assert argv == [
        *(
            "singularity",
            "exec",
            "--nv",
            "--bind",
            "/ocean",
            "--bind",
            "/w/me",
            "--pwd",
            "/w/me",
            "/i/tf.sif",
        ),
    ]


def test_without_gpus_no_flag_asks_for_them() -> None:
    assert "--nv" not in enter_argv(SINGULARITY, "i.sif", folders=[], cwd="/", with_gpus=False)


def test_a_site_may_call_the_program_otherwise() -> None:
    container = Container(kind="apptainer", command="/opt/apptainer/bin/apptainer")
    assert (
        enter_argv(container, "i.sif", folders=[], cwd="/", with_gpus=False)[0]
        == "/opt/apptainer/bin/apptainer"
    )


def test_shifter_and_podman_have_their_own_words() -> None:
    shifter = Container(kind="shifter", gpu_flags=("--module=gpu,nccl-plugin",))
    assert enter_argv(shifter, "nvcr:tf", folders=["/w"], cwd="/w", with_gpus=True) == [
        *("shifter", "--image=nvcr:tf", "--module=gpu,nccl-plugin", "--workdir=/w"),
    ]
    podman = enter_argv(Container(kind="podman-hpc"), "tf:1", folders=["/w"], cwd="/w", with_gpus=False)
    assert podman[:4] == ["podman-hpc", "run", "--rm", "--volume=/w:/w"]
    assert "--env=SLURM_*" in podman
    assert podman[-2:] == ["--workdir=/w", "tf:1"]


@pytest.mark.parametrize("folder", ["/a:b", "/a,b", "/a\nb"])
def test_a_folder_that_cannot_be_said_is_refused(folder: str) -> None:
    with pytest.raises(BadInput, match="no colon, comma or newline"):
        enter_argv(SINGULARITY, "i.sif", folders=[folder], cwd="/", with_gpus=False)


def test_folders_inside_others_are_bound_once() -> None:
    assert outermost(["/a/b", "/a", "/ab", "/a", "/c d"]) == ["/a", "/ab", "/c d"]


def test_the_newest_image_of_the_first_pattern_that_finds_one_is_taken(tmp_path: Path) -> None:
    for number, name in enumerate(["tf_22.sif", "tf_23.sif", "other.sif"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    container = Container(
        kind="singularity", images=(f"{tmp_path}/none_*", f"{tmp_path}/tf_*", f"{tmp_path}/*")
    )
    assert find_image(container, None) == str(tmp_path / "tf_23.sif")


def test_what_is_not_there_is_refused_unless_it_is_only_planned(tmp_path: Path) -> None:
    container = Container(kind="singularity", images=("/nowhere/tf_*.sif",))
    with pytest.raises(BadInput, match="found none like /nowhere/tf_"):
        find_image(container, None)
    with pytest.raises(BadInput, match="the image must exist here; received /nowhere/x.sif"):
        find_image(container, "/nowhere/x.sif")
    assert find_image(container, None, must_exist=False) == "/nowhere/tf_*.sif"
    assert find_image(container, "/nowhere/x.sif", must_exist=False) == "/nowhere/x.sif"


def test_none_runs_without_an_image() -> None:
    assert find_image(SINGULARITY, "none") is None
    assert find_image(Container(), None) is None
    with pytest.raises(BadInput, match="not known to run images"):
        find_image(Container(), "x.sif")


def test_kinds_that_pull_by_name_need_a_name() -> None:
    assert find_image(Container(kind="shifter"), "nvcr.io/tf:1") == "nvcr.io/tf:1"
    with pytest.raises(BadInput, match="shifter needs the name of an image"):
        find_image(Container(kind="shifter"), None)


def test_an_image_is_known_by_its_sif_id_and_its_real_path(tmp_path: Path) -> None:
    head = (
        b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0")
        + b"SIF_MAGIC\0"
        + b"01\0"
        + b"02\0"
        + bytes(range(16))
    )
    (tmp_path / "a.sif").write_bytes(head + b"rest")
    (tmp_path / "latest.sif").symlink_to("a.sif")
    described = describe_image(str(tmp_path / "latest.sif"))
    assert described["sif_id"] == bytes(range(16)).hex()
    assert described["real_path"] == str(tmp_path / "a.sif")
    assert describe_image("nvcr.io/tf:1") == {"image": "nvcr.io/tf:1"}


def test_the_program_behind_an_image_is_started_deaf_to_what_slurm_sends_to_all(tmp_path: Path) -> None:
    real = tmp_path / "real one"
    real.write_text('#!/bin/sh\ngrep SigIgn /proc/$$/status\necho "$@"\n')
    stand_in = tmp_path / "squashfuse_ll"
    stand_in.write_text(deaf_file_system(str(real)))
    for program in (real, stand_in):
        program.chmod(0o755)
    done = subprocess.run([stand_in, "-o", "a b"], env={}, capture_output=True, text=True, check=True)
    ignored, words = done.stdout.splitlines()
    mask = int(ignored.split()[1], 16)
    assert words == "-o a b"
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        assert mask & 1 << (number - 1)
