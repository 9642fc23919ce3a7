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
from pathlib import Path
from typing import Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.checks import did_you_mean, parse_whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput, HpcdlError
from hpcdl.common.files import nearest_existing
from hpcdl.common.options import OneLineParser
from hpcdl.launch.config import read_config
from hpcdl.launch.definitions import DEBIAN, MIRROR, RECIPES, problems
from hpcdl.launch.image_plan import ROOM_GB, Plan, Room, lacking, part_of, plan_build, plan_pull
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Container


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
    if image is not None and not options.dry_run and not os.path.isdir(os.path.dirname(image)):
        raise BadInput(
            f"IMAGE must lie in a folder that is there; received {options.image}; make the folder first"
        )
    with tempfile.TemporaryDirectory(prefix="hpcdl-definition-") as folder:
        if options.action == "build":
            definition, room_gb = _definition(options.source, Path(folder), options.mirror, options.dry_run)
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
                room_gb=options.room or ROOM_GB,
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
    part = None if plan.result is None else Path(part_of(plan.result))
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


def _definition(source: str, folder: Path, mirror: Optional[str], dry_run: bool) -> Tuple[str, int]:
    """Gives the definition file and the room that its build needs; one of hpcdl's own is written."""
    if not source.endswith(".def"):
        if source not in RECIPES:
            hint = did_you_mean(source, RECIPES)
            raise BadInput(
                f"DEF must be one of {', '.join(RECIPES)}, or a file whose name ends in .def; received {source!r};"
                f" {hint}pass one of them, or rename the file"
            )
        recipe = RECIPES[source]
        path = folder / f"hpcdl-{source}.def"
        text = _with_mirror(recipe.render(str(Path(hpcdl.__file__).resolve().parent)), mirror, dry_run)
        path.write_text(text, encoding="utf-8")
        if dry_run:
            print(text, file=sys.stderr)
        return str(path), recipe.room_gb
    path = Path(source)
    if not path.is_file():
        raise BadInput(
            f"DEF must be a file that is there, or one of {', '.join(RECIPES)}; received {source}; check the path"
        )
    wrong = problems(path.read_text(encoding="utf-8", errors="replace"))
    if wrong:
        raise BadInput(f"{source} cannot be built: {'; '.join(wrong)}; correct it")
    return str(path), ROOM_GB


def _with_mirror(text: str, mirror: Optional[str], dry_run: bool) -> str:
    """Says in a definition file where Debian comes from; a dry run may leave that open."""
    if MIRROR not in text:
        return text
    found = mirror or _mirror_of_apt()
    if found is None and not dry_run:
        raise BadInput(
            f"the image is made of Debian {DEBIAN}; received no mirror of it, and apt has none here; pass --mirror URL"
        )
    return text if found is None else text.replace(MIRROR, found)


def _mirror_of_apt() -> Optional[str]:
    """Asks apt where this machine has the release from; None: it has no apt, or another release."""
    if shutil.which("apt-get") is None:
        return None
    argv = ["apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    sites = [line.split() for line in done.stdout.decode(errors="replace").splitlines()]
    return next((words[1] for words in sites if len(words) == 2 and words[0] == DEBIAN), None)


def _room(folder: str) -> Room:
    there = nearest_existing(Path(folder))
    return Room(os.stat(there).st_dev, shutil.disk_usage(there).free / 1e9)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="hpcdl container",
        description="Get an image: build it, or fetch it from a registry. What follows -- goes to the program itself.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    known = "; ".join(f"{name}: {recipe.purpose}" for name, recipe in RECIPES.items())
    build = actions.add_parser("build", help="build an image from a definition file", epilog=_BUILD_EPILOG)
    build.add_argument("source", metavar="DEF", help=f"a definition file, or one of hpcdl's ({known})")
    build.add_argument("image", metavar="IMAGE", help="the file to make")
    build.add_argument(
        "--mirror", metavar="URL", help="take Debian from this mirror (default: where apt takes it from)"
    )
    pull = actions.add_parser("pull", help="fetch an image from a registry", epilog=_PULL_EPILOG)
    pull.add_argument("source", metavar="SOURCE", help="such as docker://NAME:TAG")
    pull.add_argument("image", metavar="IMAGE", nargs="?", help="the file to make")
    for action, room in ((build, f"{ROOM_GB}, of hpcdl's own what they need"), (pull, ROOM_GB)):
        action.add_argument(
            "--site", metavar="NAME", help="use the folders of site NAME (default: as for submit, else local)"
        )
        action.add_argument("--room", metavar="GB", type=_whole, help=f"need GB of room (default: {room})")
        action.add_argument("--force", action="store_true", help="replace an image that is there")
        action.add_argument("--dry-run", action="store_true", help="say what would be run; touch nothing")
    return parser


def _whole(text: str) -> int:
    return parse_whole_number("--room", text)


_BUILD_EPILOG = """\
examples:
  hpcdl container build cpu hpcdl-cpu.sif                    Debian, TensorFlow, Horovod; no registry, no root
  hpcdl container build my.def my.sif -- --fakeroot          a definition of your own"""
_PULL = "  hpcdl container pull docker://nvcr.io/nvidia/tensorflow:23.04-tf2-py3 tf.sif --dry-run"
_PULL_EPILOG = f"example:\n{_PULL}"
_EPILOG = f"{_BUILD_EPILOG}\n{_PULL}"
