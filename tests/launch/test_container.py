"""The argv that enters an image, and the choice of the image."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Tuple

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.container import (
    deaf_file_system,
    describe_choice,
    describe_image,
    enter_argv,
    find_image,
    image_environ,
    outermost,
)
from hpcdl.launch.sites.profile import Container
from hpcdl.launch.tried_images import note_image, read_tried, read_ways

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
        *(
            "env",
            "-u",
            "LD_LIBRARY_PATH",
            "shifter",
            "--image=nvcr:tf",
            "--module=gpu,nccl-plugin",
            "--workdir=/w",
        ),
    ]
    podman = enter_argv(Container(kind="podman-hpc"), "tf:1", folders=["/w"], cwd="/w", with_gpus=False)
    assert podman[:3] == ["podman-hpc", "run", "--rm"]
    assert podman[3:7] == ["--network=host", "--ipc=host", "--pid=host", "--volume=/w:/w"]
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


def test_a_link_to_an_image_that_is_gone_is_none(tmp_path: Path) -> None:
    (tmp_path / "old.sif").touch()
    (tmp_path / "latest.sif").symlink_to("gone.sif")
    container = Container(kind="apptainer", images=(f"{tmp_path}/*.sif",))
    assert find_image(container, None) == str(tmp_path / "old.sif")


def test_of_the_sites_images_the_newest_that_has_passed_the_doctor_is_taken(tmp_path: Path) -> None:
    environ = {"HPCDL_CACHE": str(tmp_path / "cache")}
    paths = [tmp_path / name for name in ("tf_22.sif", "tf_23.sif", "tf_24.sif")]
    for year, path in enumerate(paths):
        path.write_text("image")
        os.utime(str(path), (year, year))
    container = Container(kind="apptainer", images=(f"{tmp_path}/tf_*.sif",))

    def chosen() -> Tuple[str, str]:
        tried = read_tried(environ)
        image = find_image(container, None, tried=tried)
        return Path(image or "").name, describe_choice(image, None, tried)

    assert chosen() == ("tf_24.sif", "the site's newest, of which the doctor knows nothing yet")
    note_image(str(paths[2]), False, environ)
    assert chosen()[0] == "tf_23.sif"
    note_image(str(paths[0]), True, environ)
    assert chosen() == ("tf_22.sif", "the newest that has passed the doctor")
    paths[0].write_text("another one under its name")
    assert chosen()[0] == "tf_22.sif"  # the newest of those that nobody has looked at
    for path in paths:
        note_image(str(path), False, environ)
    assert chosen() == ("tf_22.sif", "the doctor has passed none")
    assert describe_choice(str(paths[0]), "tf_22.sif", read_tried(environ)) == ""


def test_how_an_images_horovod_can_meet_is_known_of_the_file_that_the_doctor_saw(tmp_path: Path) -> None:
    environ = {"HPCDL_CACHE": str(tmp_path / "cache")}
    image = tmp_path / "tf.sif"
    image.write_text("image")
    assert read_ways(str(image), environ) is None
    note_image(str(image), False, environ, ways=["mpi"])
    assert read_ways(str(image), environ) == ("mpi",)
    image.write_text("another one under its name")
    assert read_ways(str(image), environ) is None
    assert read_ways(None, environ) is None
    note_image(str(image), True, environ)
    assert read_ways(str(image), environ) is None


def test_a_verdict_that_cannot_be_kept_or_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.sif").write_text("image")
    (tmp_path / "file").write_text("")
    note_image(str(tmp_path / "a.sif"), True, {"HPCDL_CACHE": str(tmp_path / "file")})
    note_image("nvcr.io/tf:1", True, {"HPCDL_CACHE": str(tmp_path)})
    assert read_tried({"HPCDL_CACHE": str(tmp_path)}) == {}
    for text in ("[", "[]", f'{{"{tmp_path}/a.sif": null}}', f'{{"{tmp_path}/a.sif": 5}}'):
        (tmp_path / "images.json").write_text(text)
        assert read_tried({"HPCDL_CACHE": str(tmp_path)}) == {}
        assert read_ways(str(tmp_path / "a.sif"), {"HPCDL_CACHE": str(tmp_path)}) is None


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


def test_the_users_own_image_is_taken_where_images_can_be_run(tmp_path: Path) -> None:
    (tmp_path / "my.sif").touch()
    own = str(tmp_path / "my.sif")
    assert find_image(SINGULARITY, None, default=own) == own
    assert find_image(SINGULARITY, "none", default=own) is None
    assert find_image(SINGULARITY, None, default="none") is None
    assert find_image(Container(), None, default=own) is None


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
    assert image_environ(described) == {"HPCDL_IMAGE": f"{tmp_path / 'a.sif'} {bytes(range(16)).hex()}"}
    assert describe_image("nvcr.io/tf:1") == {"image": "nvcr.io/tf:1"}
    assert image_environ({"image": "nvcr.io/tf:1"}) == {"HPCDL_IMAGE": "nvcr.io/tf:1"}


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
