"""How an image comes here: the command, the folders that it fills, the room that it needs. Pure functions.

Synopsis::

    plan = plan_build(site.container, "hpcdl-cpu.def", "/me/hpcdl-cpu.sif", os.environ, room_gb=5)
    lacking(plan.needs_gb, room)                # what has too little room
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.errors import BadInput
from hpcdl.launch.container import BY_FILE, program_of
from hpcdl.launch.definitions import CACHE_INSIDE
from hpcdl.launch.sites.profile import Container

#: About what an image of NVIDIA's needs while it is unpacked; of the user's own files nothing is known.
ROOM_GB = 40
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Plan:
    """How an image comes here.

    Attributes:
        argv: The command.
        environ: Variables for it, over those that are there.
        needs_gb: Room that is needed, by folder.
        result: The file that the command makes; None: the container program keeps the image itself.
    """

    argv: Tuple[str, ...]
    environ: Mapping[str, str]
    needs_gb: Mapping[str, int]
    result: Optional[str]


class Room(NamedTuple):
    """A folder's file system: which one it is, and what is free on it."""

    device: int
    free_gb: float


def plan_build(
    container: Container,
    definition: str,
    image: str,
    environ: Mapping[str, str],
    *,
    room_gb: int,
    further: Sequence[str] = (),
) -> Plan:
    """Plans the build of an image from a definition file; nothing is touched.

    Args:
        container: How the site runs images.
        definition: The definition file.
        image: The file to make.
        environ: The variables of the caller.
        room_gb: Room that the build needs.
        further: Words for ``apptainer build``.

    Raises:
        BadInput: The site's containers are not built from definition files.
    """
    _need_by_file(container, "build")
    binds = [(str(cache_folder(environ)), CACHE_INSIDE), (_CERTIFICATES, _CERTIFICATES)]
    bound = [word for here, there in binds if os.path.exists(here) for word in ("--bind", f"{here}:{there}")]
    argv = (program_of(container), "build", *bound, *further, part_of(image), definition)
    return _plan(container, argv, environ, image, room_gb)


def plan_pull(
    container: Container,
    source: str,
    image: Optional[str],
    environ: Mapping[str, str],
    *,
    room_gb: int,
    further: Sequence[str] = (),
) -> Plan:
    """Plans to fetch an image from a registry; nothing is touched.

    Raises:
        BadInput: The file to make is not said, or is said where the site keeps images by name; or the source does
            not say how it is fetched.
    """
    if container.kind in BY_FILE or container.kind in (None, "none"):
        _need_by_file(container, "pull")
        if image is None:
            raise BadInput(
                "hpcdl container pull needs the file to make; received none; e.g. ... pull docker://NAME tf.sif"
            )
        if not re.match(r"[a-z][a-z0-9+.-]*://.", source):
            raise BadInput(
                f"SOURCE must say how it is fetched, before ://; received {source!r}; pass e.g."
                f" docker://{source or 'NAME:TAG'}, or library:// or oras:// with it"
            )
        argv = (program_of(container), "pull", *further, part_of(image), source)
        return _plan(container, argv, environ, image, room_gb)
    if image is not None:
        raise BadInput(
            f"{container.kind} keeps images by name; received the file {image}; leave it out, and submit with"
            " --image NAME"
        )
    name = source[len("docker://") :] if source.startswith("docker://") else source
    program = "shifterimg" if container.kind == "shifter" else program_of(container)
    return Plan((program, "pull", *further, name), {}, {}, None)


def folders_of(container: Container, environ: Mapping[str, str]) -> Tuple[str, str]:
    """Gives the folders for fetched layers and for putting an image together: the user's, the profile's, else usual.

    Raises:
        BadInput: The profile names a variable that is not set here.
    """
    home = home_folder(environ)
    cache = _first(environ, "CACHEDIR") or _expand(container.cache, environ, "cache")
    scratch = _first(environ, "TMPDIR") or _expand(container.scratch, environ, "scratch")
    return cache or str(home / ".apptainer" / "cache"), scratch or environ.get("TMPDIR") or "/tmp"


def lacking(needs_gb: Mapping[str, int], room: Callable[[str], Room]) -> List[str]:
    """Says which file systems have too little room; folders on the same one need the sum.

    Args:
        needs_gb: Room by folder.
        room: Looks a folder up.
    """
    by_device: Dict[int, List[str]] = {}
    for folder in needs_gb:
        by_device.setdefault(room(folder).device, []).append(folder)
    found = []
    for folders in by_device.values():
        need, free = sum(needs_gb[folder] for folder in folders), room(folders[0]).free_gb
        if free < need:
            found.append(f"{' and '.join(folders)}: {free:.1f} GB free, about {need} GB needed")
    return found


def _plan(
    container: Container, argv: Tuple[str, ...], environ: Mapping[str, str], image: str, room_gb: int
) -> Plan:
    cache, scratch = folders_of(container, environ)
    # Old Singularity knows only its own names, Apptainer both.
    names = {
        f"{program}_{what}": folder
        for what, folder in (("CACHEDIR", cache), ("TMPDIR", scratch))
        for program in (("SINGULARITY",) if container.kind == "singularity" else ("APPTAINER",))
    }
    needs: Dict[str, int] = {}
    # Unpacked in the one, packed in the image; layers of a registry stay in the cache.
    parts = [(scratch, room_gb), (os.path.dirname(image), max(1, room_gb // 4))]
    parts += [(cache, room_gb // 4)] if room_gb >= ROOM_GB else []
    for folder, need in parts:
        needs[folder] = needs.get(folder, 0) + need
    return Plan(argv, names, needs, image)


def part_of(image: str) -> str:
    """Names the file while it is not whole; the ending stays, which the container programs look at."""
    path = Path(image)
    return str(path.with_name(f".{path.stem}.part{path.suffix}"))


def _need_by_file(container: Container, action: str) -> None:
    if container.kind not in BY_FILE:
        raise BadInput(
            f"hpcdl container {action} makes files for singularity and apptainer; this site runs {container.kind};"
            f" use its own way, and submit with --image NAME"
        )


def _first(environ: Mapping[str, str], what: str) -> Optional[str]:
    return environ.get(f"APPTAINER_{what}") or environ.get(f"SINGULARITY_{what}")


def _expand(text: Optional[str], environ: Mapping[str, str], key: str) -> Optional[str]:
    if text is None:
        return None
    try:
        return Template(text).substitute(environ)
    except (KeyError, ValueError) as problem:
        raise BadInput(
            f"container.{key} of the profile is {text}, and not all of it is set here; log in to the site, or set"
            f" APPTAINER_{'CACHEDIR' if key == 'cache' else 'TMPDIR'}"
        ) from problem
