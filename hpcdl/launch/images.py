"""The command ``hpcdl container``: get an image, by building it or from a registry, with room for it checked first.

Synopsis::

    hpcdl container build cpu hpcdl-cpu.sif --dry-run
    hpcdl container build my.def my.sif -- --fakeroot
    hpcdl container pull docker://nvcr.io/nvidia/tensorflow:23.04-tf2-py3 tf.sif --site bridges2
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.cache import cache_folder, home_folder
from hpcdl.common.checks import one_of, parse_whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput, HpcdlError
from hpcdl.common.options import OneLineParser
from hpcdl.launch.config import read_config
from hpcdl.launch.container import BY_FILE, program_of
from hpcdl.launch.definitions import CACHE_INSIDE, RECIPES, problems
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Container

#: About what an image of NVIDIA's needs while it is unpacked; of the user's own files nothing is known.
_ROOM_GB = 40
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
    argv = (program_of(container), "build", *bound, *further, _part(image), definition)
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
        BadInput: The file to make is not said, or is said where the site keeps images by name.
    """
    if container.kind in BY_FILE or container.kind in (None, "none"):
        _need_by_file(container, "pull")
        if image is None:
            raise BadInput(
                "hpcdl container pull needs the file to make; received none; e.g. ... pull docker://NAME tf.sif"
            )
        argv = (program_of(container), "pull", *further, _part(image), source)
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


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl container ARGV``.

    Returns:
        The exit status.

    Raises:
        BadInput: The words are wrong, or there is too little room; nothing was written.
        HpcdlError: The build or the pull failed.
    """
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:cut])
    further = words[cut + 1 :]
    config = config_dir(os.environ)
    site, _ = choose_site(options.site, read_config(config).site, os.environ, config, otherwise="local")
    container = load_profile(site, config).site.container
    if container.kind in (None, "none"):  # a laptop's profile says nothing of images, and may well build some
        container = Container(kind="apptainer" if shutil.which("apptainer") else "singularity")
    image = os.path.abspath(os.path.expanduser(options.image)) if options.image is not None else None
    if image is not None and os.path.exists(image) and not options.force and not options.dry_run:
        raise BadInput(f"the image must not be there yet; received {image}; pass --force to replace it")
    with tempfile.TemporaryDirectory(prefix="hpcdl-definition-") as folder:
        if options.action == "build":
            definition, room_gb = _definition(options.source, Path(folder), options.dry_run)
            plan = plan_build(
                container,
                definition,
                str(image),
                os.environ,
                room_gb=options.room or room_gb,
                further=further,
            )
        else:
            plan = plan_pull(
                container,
                options.source,
                image,
                os.environ,
                room_gb=options.room or _ROOM_GB,
                further=further,
            )
        return _carry_out(plan, options.dry_run)


def _carry_out(plan: Plan, dry_run: bool) -> int:
    short = lacking(plan.needs_gb, _room)
    if dry_run:
        for folder, need in plan.needs_gb.items():
            print(f"room         {folder}: {_room(folder).free_gb:.1f} GB free, about {need} GB needed")
        names = [f"{name}={shlex.quote(value)}" for name, value in plan.environ.items()]
        print(" ".join([*names, *(shlex.quote(word) for word in plan.argv)]))
        return EXIT_DONE
    if short:
        raise BadInput(
            f"an image needs room; {'; '.join(short)}; free some, point APPTAINER_CACHEDIR and APPTAINER_TMPDIR"
            " elsewhere, or pass --room GB if you know better"
        )
    program = plan.argv[0]
    if shutil.which(program) is None:
        raise BadInput(
            f"{program} is needed to get an image; found none here; load its module, or log in to a node that has it"
        )
    for folder in plan.environ.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    part = None if plan.result is None else Path(_part(plan.result))
    try:
        status = subprocess.call(list(plan.argv), env={**os.environ, **plan.environ})
        if status != 0:
            raise HpcdlError(
                f"{program} ended with status {status}; see above, and containers/README.md for builds without root"
            )
        if part is not None and plan.result is not None:
            os.replace(str(part), plan.result)
            print(plan.result)
    finally:
        if part is not None and part.is_file():
            part.unlink()
    return EXIT_DONE


def _definition(source: str, folder: Path, dry_run: bool) -> Tuple[str, int]:
    """Gives the definition file and the room that its build needs; one of hpcdl's own is written."""
    if not source.endswith(".def"):
        recipe = RECIPES[one_of("a definition", source, tuple(RECIPES))]
        path = folder / f"hpcdl-{source}.def"
        text = recipe.render(str(Path(hpcdl.__file__).resolve().parent))
        path.write_text(text, encoding="utf-8")
        if dry_run:
            print(text, file=sys.stderr)
        return str(path), recipe.room_gb
    path = Path(source)
    if not path.is_file():
        raise BadInput(
            f"a definition must be a file, or one of {', '.join(RECIPES)}; received {source}; check the path"
        )
    wrong = problems(path.read_text(encoding="utf-8"))
    if wrong:
        raise BadInput(f"{source} cannot be built: {'; '.join(wrong)}; correct it")
    return str(path), _ROOM_GB


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
    parts += [(cache, room_gb // 4)] if room_gb >= _ROOM_GB else []
    for folder, need in parts:
        needs[folder] = needs.get(folder, 0) + need
    return Plan(argv, names, needs, image)


def _part(image: str) -> str:
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
    words = text
    for name, value in sorted(environ.items(), key=lambda pair: -len(pair[0])):
        words = words.replace(f"${{{name}}}", value).replace(f"${name}", value)
    if "$" in words:
        raise BadInput(
            f"container.{key} of the profile is {text}, and not all of it is set here; log in to the site, or set"
            f" APPTAINER_{'CACHEDIR' if key == 'cache' else 'TMPDIR'}"
        )
    return words


def _room(folder: str) -> Room:
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    return Room(os.stat(there).st_dev, shutil.disk_usage(there).free / 1e9)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="hpcdl container",
        description="Get an image: build it, or fetch it from a registry. What follows -- goes to the program itself.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    known = "; ".join(f"{name}: {recipe.purpose}" for name, recipe in RECIPES.items())
    build = actions.add_parser("build", help="build an image from a definition file")
    build.add_argument("source", metavar="DEF", help=f"a definition file, or one of hpcdl's ({known})")
    build.add_argument("image", metavar="IMAGE", help="the file to make")
    pull = actions.add_parser("pull", help="fetch an image from a registry")
    pull.add_argument("source", metavar="SOURCE", help="such as docker://NAME:TAG")
    pull.add_argument("image", metavar="IMAGE", nargs="?", help="the file to make")
    for action in (build, pull):
        action.add_argument(
            "--site", metavar="NAME", help="use the folders of site NAME (default: as for submit, else local)"
        )
        action.add_argument(
            "--room", metavar="GB", type=_whole, help="need GB of room (default: by the definition)"
        )
        action.add_argument("--force", action="store_true", help="replace an image that is there")
        action.add_argument("--dry-run", action="store_true", help="say what would be run; touch nothing")
    return parser


def _whole(text: str) -> int:
    return parse_whole_number("--room", text)


_EPILOG = """\
examples:
  hpcdl container build cpu hpcdl-cpu.sif                    Debian, TensorFlow, Horovod; no registry, no root
  hpcdl container build my.def my.sif -- --fakeroot          a definition of your own
  hpcdl container pull docker://nvcr.io/nvidia/tensorflow:23.04-tf2-py3 tf.sif --dry-run"""
