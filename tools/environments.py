"""Makes the worlds that hpcdl is run and tested in: one virtual environment per combination of versions.

Needs a Python >= 3.8, pip's way to packages and a C++ compiler; no root, no MPI. An environment is made
once for each Python, and again when what it is made from changes. A world whose interpreter this machine lacks is
skipped; that is said, and with HPCDL_REQUIRE_ALL_WORLDS=1 it is an error.

Synopsis::

    python tools/environments.py list
    python tools/environments.py make tf2.21 tf2.15
    python tools/environments.py run tf2.15 -- python -m pytest tests/runtime
    python tools/environments.py python 3.12 3.11          # /usr/bin/python3.12
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.errors import EXIT_INTERRUPTED, BadInput, HpcdlError  # noqa: E402
from hpcdl.launch.horovod_recipe import HOROVOD_VERSION, PATCH_LEVEL  # noqa: E402
from hpcdl.launch.logged import Screen, on_our_screen, run_logged  # noqa: E402
from tools.interpreters import Interpreter, InterpreterMissing, find_interpreter  # noqa: E402

_ENVIRONMENTS = ROOT / ".envs"
#: Goes up when the way in which an environment is made changes.
_FORMAT = 1
_STAMP = "hpcdl-stamp.json"


@dataclass(frozen=True)
class World:
    """A combination of versions: the Pythons that it can run on, best first, and its requirement files.

    What ``alone`` lists is installed without its dependencies.
    """

    name: str
    pythons: Tuple[str, ...]
    requirements: str
    alone: str = ""


_TESTED = (
    World("tf2.21", ("3.11", "3.12", "3.13", "3.10"), "tf2.21.txt", "legacy-keras.txt"),
    World("tf2.12", ("3.8",), "tf2.12.txt"),
    World("tf2.15", ("3.11", "3.10"), "tf2.15.txt"),
)
_MATRIX = (
    World("tf2.21-py3.10", ("3.10",), "tf2.21.txt", "legacy-keras.txt"),
    World("tf2.21-py3.12", ("3.12",), "tf2.21.txt", "legacy-keras.txt"),
    World("tf2.21-py3.13", ("3.13",), "tf2.21.txt", "legacy-keras.txt"),
    World("tf2.17", ("3.11",), "tf2.17.txt"),
)
GROUPS: Mapping[str, Tuple[World, ...]] = {"tested": _TESTED, "matrix": _MATRIX}


def find_worlds(names: Sequence[str]) -> List[World]:
    """Finds worlds by name; the name of a group stands for all of its worlds.

    Raises:
        BadInput: A name is unknown.
    """
    known = {world.name: (world,) for group in GROUPS.values() for world in group}
    found: List[World] = []
    for name in names:
        if name not in known and name not in GROUPS:
            names = f"worlds are {', '.join(known)}; groups are {', '.join(GROUPS)}"
            raise BadInput(f"unknown world {name!r}; {names}")
        found.extend(GROUPS.get(name) or known[name])
    return found


def make(world: World, screen: Screen) -> Path:
    """Makes the environment of a world, or takes the one that is there if it is up to date.

    Returns:
        Its folder.

    Raises:
        InterpreterMissing: This machine has no Python for it.
        HpcdlError: A step failed.
    """
    interpreter = find_interpreter(world.pythons, os.environ)
    folder = folder_of(world, interpreter)
    with _one_at_a_time(folder.name):
        wanted = digests(world, interpreter)
        made = _read_stamp(folder)
        if made == wanted:
            return folder
        log = _ENVIRONMENTS / "logs" / f"{folder.name}.log"
        if made.get("packages") != wanted["packages"]:
            _make_packages(world, interpreter, folder, log, screen)
            made = _write_stamp(folder, {"packages": wanted["packages"]})
        if made.get("project") != wanted["project"]:
            argv = [*_pip(folder), "install", "--no-deps", "--editable", str(ROOT)]
            run_logged(argv, title=f"{world.name}: installing hpcdl", log=log, screen=screen)
            made = _write_stamp(folder, {**made, "project": wanted["project"]})
        if made.get("horovod") != wanted["horovod"]:
            screen.say(f"{world.name}: Horovod")
            argv = [str(folder / "bin" / "python"), "-m", "hpcdl", "horovod", "install"]
            environ = environ_of(folder, os.environ, os.geteuid())
            with on_our_screen(argv, env=environ, cwd=ROOT) as child:
                child.wait()
            if child.returncode != 0:
                raise HpcdlError(f"{world.name}: Horovod could not be installed; see above")
            _write_stamp(folder, wanted)
    return folder


def folder_of(world: World, interpreter: Interpreter) -> Path:
    """Gives the folder of a world's environment: another for each Python, so that none is removed in use."""
    return _ENVIRONMENTS / f"{world.name.partition('-py')[0]}-py{interpreter.release}"


def environ_of(folder: Path, environ: Mapping[str, str], user_id: int) -> Dict[str, str]:
    """Gives the variables for commands in an environment, whatever environment is active outside.

    Args:
        folder: The virtual environment.
        environ: The variables outside.
        user_id: 0 for root, whom Open MPI refuses unless told otherwise.
    """
    inside = {name: value for name, value in environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    inside["VIRTUAL_ENV"] = str(folder)
    inside["PATH"] = os.pathsep.join([str(folder / "bin"), environ.get("PATH", os.defpath)])
    if user_id == 0:
        inside["OMPI_ALLOW_RUN_AS_ROOT"] = inside["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return inside


def make_or_skip(world: World, screen: Screen) -> bool:
    """Makes the environment of a world unless this machine has no Python for it; that is said.

    Returns:
        Whether the world is there.

    Raises:
        InterpreterMissing: As above, and HPCDL_REQUIRE_ALL_WORLDS=1 is set.
        HpcdlError: A step failed.
    """
    try:
        make(world, screen)
    except InterpreterMissing as missing:
        if os.environ.get("HPCDL_REQUIRE_ALL_WORLDS") == "1":
            raise
        screen.say(f"SKIPPED {world.name}: {missing}")
        return False
    return True


def main(argv: Sequence[str]) -> int:
    """Runs ``environments.py list | make WORLD... | run WORLD -- COMMAND...``."""
    parser = argparse.ArgumentParser(description="Make and use the environments that hpcdl is tested in.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="say which worlds there are, and which this machine can make")
    making = actions.add_parser("make", help="make the environments of worlds or groups")
    making.add_argument("worlds", metavar="WORLD", nargs="+")
    naming = actions.add_parser("python", help="name the first Python of some versions that is here")
    naming.add_argument("versions", metavar="X.Y", nargs="+")
    running = actions.add_parser("run", help="make an environment if need be, and run a command in it")
    running.add_argument("world", metavar="WORLD")
    running.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)
    options = parser.parse_args(list(argv))
    screen = Screen(sys.stderr)
    if options.action == "list":
        print("\n".join(_list_lines()))
    elif options.action == "python":
        print(find_interpreter(options.versions, os.environ, at_hand=None).path)
    elif options.action == "make":
        for world in find_worlds(options.worlds):
            make_or_skip(world, screen)
    else:
        command = options.command[1:] if options.command[:1] == ["--"] else options.command
        worlds = find_worlds([options.world])
        if len(worlds) != 1 or not command:
            received = " ".join([options.world, *command])
            raise BadInput(f"run takes one world and a command; received {received}: run tf2.21 -- python")
        environ = environ_of(make(worlds[0], screen), os.environ, os.geteuid())
        os.execvpe(command[0], command, environ)
    return 0


def guarded(entry: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Runs a main function; an error of hpcdl's is one line on stderr, Ctrl-C is 130."""
    try:
        return entry(argv)
    except HpcdlError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _list_lines() -> Iterator[str]:
    for group, worlds in GROUPS.items():
        for world in worlds:
            try:
                interpreter = find_interpreter(world.pythons, os.environ)
                state = "up to date" if _is_made(world, interpreter) else "not made"
                yield f"{world.name:<14} {group:<7} {state:<11} {interpreter.path} ({interpreter.version})"
            except InterpreterMissing as missing:
                yield f"{world.name:<14} {group:<7} {'impossible':<11} {missing}"


def _is_made(world: World, interpreter: Interpreter) -> bool:
    return _read_stamp(folder_of(world, interpreter)) == digests(world, interpreter)


def _make_packages(world: World, interpreter: Interpreter, folder: Path, log: Path, screen: Screen) -> None:
    with contextlib.suppress(FileNotFoundError):
        log.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    title = f"{world.name}: Python {interpreter.version}"
    without_pip = [] if interpreter.has_ensurepip else ["--without-pip"]
    argv = [interpreter.path, "-m", "venv", *without_pip, str(folder)]
    run_logged(argv, title=title, log=log, screen=screen)
    if not interpreter.has_ensurepip:  # Debian without python3-venv
        argv = [interpreter.path, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "pip"]
        run_logged(argv, title=f"{world.name}: pip", log=log, screen=screen)
    for name, options in ((world.requirements, []), (world.alone, ["--no-deps"])):
        if name:
            argv = [*_pip(folder), "install", *options, "--requirement", str(ROOT / "requirements" / name)]
            run_logged(argv, title=f"{world.name}: packages of {name}", log=log, screen=screen)


def _pip(folder: Path) -> List[str]:
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def digests(world: World, interpreter: Interpreter) -> Dict[str, str]:
    """Digests of what each part of an environment is made from; a part whose digest differs is made again."""
    files = [path for name in (world.requirements, world.alone) if name for path in _requirement_files(name)]
    texts = [text for path in files for text in (path.name, path.read_text())]
    packages = _digest([str(_FORMAT), str(ROOT), interpreter.version, *texts])
    return {
        "packages": packages,
        "project": _digest([packages, (ROOT / "pyproject.toml").read_text()]),
        "horovod": _digest([packages, HOROVOD_VERSION, str(PATCH_LEVEL)]),
    }


def _requirement_files(name: str) -> List[Path]:
    path = ROOT / "requirements" / name
    files = [path]
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            files.extend(_requirement_files(line[3:].strip()))
    return files


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _read_stamp(folder: Path) -> Dict[str, str]:
    try:
        return dict(json.loads((folder / _STAMP).read_text()))
    except (OSError, ValueError):
        return {}


def _write_stamp(folder: Path, digests: Mapping[str, str]) -> Dict[str, str]:
    (folder / _STAMP).write_text(json.dumps(dict(digests)))
    return dict(digests)


@contextlib.contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    _ENVIRONMENTS.mkdir(exist_ok=True)
    with (_ENVIRONMENTS / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
