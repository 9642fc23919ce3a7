"""Images: which one a run takes, and the argv that enters it. Pure functions but for `find_image` and `put_stand_in`.

Everything that the ranks need reaches the image by folders that are bound and by ``env``, which every kind of
container understands alike; nothing of hpcdl, submitit or Slurm must be inside.

Synopsis::

    image = find_image(site.container, "tf.sif")
    enter_argv(site.container, image, folders=["/data/me"], cwd="/data/me", with_gpus=True) + ["python3", "train.py"]
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import types
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hpcdl.common.errors import BadInput
from hpcdl.launch.sites.profile import Container

NO_IMAGE = "none"
#: Kinds of containers whose images are files.
BY_FILE = ("singularity", "apptainer")
#: The program behind an image that an ordinary user's Apptainer mounts.
FILE_SYSTEM = "squashfuse_ll"
#: Variables that bring libraries of the host's into an image.
LIBRARIES_FOR_IMAGES = ("APPTAINERENV_LD_LIBRARY_PATH", "SINGULARITYENV_LD_LIBRARY_PATH")


def find_image(
    container: Container,
    asked: Optional[str],
    must_exist: bool = True,
    default: Optional[str] = None,
    tried: Mapping[str, bool] = types.MappingProxyType({}),
) -> Optional[str]:
    """Chooses the image: what the user says, else of the site's own the newest that has passed the doctor.

    Where none has, the newest is taken that has not failed, of the first pattern that has one.

    Args:
        container: How the site runs images.
        asked: What the user says: a file, a name in a registry, or ``none``.
        must_exist: Whether the image must be found here; for a dry run elsewhere it need not.
        default: The user's own choice wherever images can be run.
        tried: What the doctor has found, by real path (`hpcdl.launch.tried_images`).

    Returns:
        The image, or None to run without one.

    Raises:
        BadInput: There is no such image, or none is known.
    """
    if asked == NO_IMAGE or (asked is None and container.kind in (None, "none")):
        return None
    if container.kind in (None, "none"):
        raise BadInput(
            f"this site is not known to run images; received --image {asked}; set container.kind in your own file"
            " for the site, or pass --image none"
        )
    asked = asked or default
    if asked == NO_IMAGE:
        return None
    if container.kind not in BY_FILE:
        if asked is None:
            raise BadInput(
                f"{container.kind} needs the name of an image; received none; pass --image, or --image none"
            )
        return asked
    if asked is not None:
        if "://" in asked:
            raise BadInput(
                f"an image must be a file; received {asked}; fetch it once, hpcdl container pull {asked} image.sif, and"
                " pass --image image.sif"
            )
        path = os.path.abspath(os.path.expanduser(asked))
        if must_exist and not os.path.exists(path):
            raise BadInput(
                f"the image must exist here; received {asked}; check the path, or pass --image none"
            )
        return path
    found = [
        path
        for pattern in container.images
        for path in sorted(filter(os.path.exists, glob.glob(pattern)), key=os.path.getmtime, reverse=True)
    ]
    if found:
        verdicts = [tried.get(os.path.realpath(path)) for path in found]
        return found[next(verdicts.index(best) for best in (True, None, False) if best in verdicts)]
    if not must_exist and container.images:
        return container.images[0]
    known = f"found none like {', '.join(container.images)}" if container.images else "the profile knows none"
    raise BadInput(f"a run needs an image; {known}; pass --image FILE, or --image none to run without one")


def describe_choice(image: Optional[str], asked: Optional[str], tried: Mapping[str, bool]) -> str:
    """Says why `find_image` has chosen an image: as you say, or what the doctor thinks of the site's own."""
    if image is None or asked is not None:
        return ""
    passed = tried.get(os.path.realpath(image))
    if passed is None:
        return "the site's newest, of which the doctor knows nothing yet"
    return "the newest that has passed the doctor" if passed else "the doctor has passed none"


def describe_image(image: str) -> Dict[str, Any]:
    """Says which image exactly was taken, at the cost of one small read: ``tensorflow_latest`` changes."""
    described: Dict[str, Any] = {"image": image}
    try:
        status = os.stat(image)
        described.update(real_path=os.path.realpath(image), bytes=status.st_size, modified=status.st_mtime)
        if os.path.isfile(image):
            with open(image, "rb") as file:
                head = file.read(64)
            if head[32:41] == b"SIF_MAGIC":
                described["sif_id"] = head[48:64].hex()  # the header's UUID: new with every build
    except OSError:
        pass  # a name in a registry
    return described


def image_environ(described: Mapping[str, Any]) -> Dict[str, str]:
    """Tells the ranks what `describe_image` found, in a variable that their records keep: which file, which build."""
    name = str(described.get("real_path") or described["image"])
    return {"HPCDL_IMAGE": f"{name} {described['sif_id']}" if "sif_id" in described else name}


def enter_argv(
    container: Container, image: str, *, folders: Sequence[str], cwd: str, with_gpus: bool
) -> List[str]:
    """Builds the words that stand before a command to run it inside an image.

    Args:
        container: How the site runs images.
        image: The image.
        folders: What the run reads and writes; each is seen inside under its own name.
        cwd: Working folder.
        with_gpus: Whether the image gets the GPUs.

    Raises:
        BadInput: A folder's name cannot be said to the container.
    """
    program = program_of(container)
    gpu_flags = list(container.gpu_flags) if with_gpus else []
    binds = outermost([*container.binds, *folders])
    for bind in binds:
        if set(bind) & set(":,\n"):
            raise BadInput(
                f"a folder that an image sees must have no colon, comma or newline in its name; received {bind!r};"
                " rename it"
            )
    if container.kind in BY_FILE:
        bound = [word for bind in binds for word in ("--bind", bind)]
        return [program, "exec", *gpu_flags, *bound, "--pwd", cwd, image]
    if (
        container.kind == "shifter"
    ):  # it has the site's file systems by itself, and hands the host's variables on
        return ["env", "-u", "LD_LIBRARY_PATH", program, f"--image={image}", *gpu_flags, f"--workdir={cwd}"]
    # A container has a network, shared memory and process ids of its own: ranks would not reach each other.
    open_to_others = ["--network=host", "--ipc=host", "--pid=host"]
    volumes = [f"--volume={bind}:{bind}" for bind in binds]
    passed = [f"--env={prefix}*" for prefix in ("SLURM_", "PMI", "HPCDL_", "CUDA_VISIBLE_")]
    return [program, "run", "--rm", *open_to_others, *gpu_flags, *volumes, *passed, f"--workdir={cwd}", image]


def program_of(container: Container) -> str:
    """Names the program that runs images."""
    return container.command or container.kind or ""


def deaf_file_system(program: str) -> str:
    """Writes a program that stands before `FILE_SYSTEM` on PATH and starts it deaf to the signals that a job gets.

    Slurm signals every process of a step. Where an ordinary user's image is a file system in user space, the program
    behind it would die of the warning before the end of a job, and all ranks with it.

    Args:
        program: The real one.
    """
    return f"#!/bin/sh\ntrap '' TERM INT HUP USR1 USR2\nexec {shlex.quote(program)} \"$@\"\n"


def put_stand_in(folder: Path) -> None:
    """Puts `deaf_file_system` into a folder that is to stand first on PATH; nothing, where there is no such program."""
    program = shutil.which(FILE_SYSTEM)
    if program is None or Path(program).parent == folder:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_SYSTEM
    path.write_text(deaf_file_system(program), encoding="utf-8")
    path.chmod(0o755)


def outermost(folders: Sequence[str]) -> List[str]:
    """Leaves out folders that are inside others, and repetitions; the order is kept."""
    chosen: List[str] = []
    for folder in folders:
        inside = [Path(other) for other in folders if other != folder]
        if folder not in chosen and not any(other in Path(folder).parents for other in inside):
            chosen.append(folder)
    return chosen
