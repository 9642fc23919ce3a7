"""Finds a Python of a wanted version on this machine, and makes sure that it really starts.

Synopsis::

    interpreter = find_interpreter(("3.11", "3.10"), os.environ)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

from hpcdl.common.errors import BadInput

# Inside a virtual environment this gives the Python that it was made from, by its real name: environments are
# made from that one, whatever was active when `make` was called.
_PROBE = """
import importlib.util, json, os, platform, sys
has = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps({
    "path": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "version": platform.python_version(),
    "has_ensurepip": has("ensurepip"),
    "usable": has("venv") and (has("ensurepip") or has("pip")),
}))
"""


class InterpreterMissing(BadInput):
    """This machine has no Python of the versions that a world can run on, or none that can make environments."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that starts; ``usable``: and can make virtual environments."""

    path: str
    version: str
    has_ensurepip: bool
    usable: bool = True

    @property
    def release(self) -> str:
        """Such as "3.11"."""
        return ".".join(self.version.split(".")[:2])


def find_interpreter(
    versions: Sequence[str], environ: Mapping[str, str], at_hand: Optional[str] = sys.executable
) -> Interpreter:
    """Finds a Python: the one at hand if its version is wanted, else by versions, best first.

    Looked for are pythonX.Y in each folder of PATH (pyenv's stand-ins are there even where the version is not
    switched on, so each is tried) and pyenv's own folder.

    Args:
        versions: Such as ("3.11", "3.10").
        environ: Read for PATH, PYENV_ROOT and HOME.
        at_hand: The Python that runs this; None: it is a candidate as any other.

    Raises:
        InterpreterMissing: There is none.
    """
    unusable = None
    for found in _wanted(versions, environ, at_hand):
        if found.usable:
            return found
        unusable = unusable or found
    if unusable is not None:
        raise InterpreterMissing(
            f"a Python must be able to make environments; received {unusable.path}, which has no venv, or neither"
            f" ensurepip nor pip; install them (on Debian: apt install python{unusable.release}-venv), or another"
            f" Python (for example: pyenv install {versions[0]})"
        )
    names = " or ".join(f"python{version}" for version in versions)
    raise InterpreterMissing(
        f"no {names} on PATH or in pyenv; install one (for example: pyenv install {versions[0]})"
    )


def probe(path: str) -> Optional[Interpreter]:
    """Starts an interpreter to see what it is; None if it does not start."""
    try:
        done = subprocess.run(
            [path, "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
        )
        return Interpreter(**json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _wanted(
    versions: Sequence[str], environ: Mapping[str, str], at_hand: Optional[str]
) -> Iterator[Interpreter]:
    first = probe(at_hand) if at_hand else None
    if first and first.release in versions:
        yield first
    for version in versions:
        for candidate in _candidates(version, environ):
            found = probe(candidate)
            if found and found.release == version:
                yield found


def _candidates(version: str, environ: Mapping[str, str]) -> Iterator[str]:
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder) / f"python{version}"
        if folder and path.is_file():
            yield str(path)
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv")
    for path in sorted((root / "versions").glob(f"{version}*/bin/python{version}"), reverse=True):
        yield str(path)
