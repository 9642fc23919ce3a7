"""Gets files from a package of Debian, without root: apt-get downloads it into a folder, dpkg-deb unpacks it there.

Synopsis::

    fetch_debian(package, Path("/usr/share/datasets/x"), files, target=cache / "x", check=verify)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence

from hpcdl.common.saying import say
from hpcdl.runtime.fetching import CONNECT_TIMEOUT_S, NotFetched, one_line, put_in_place
from hpcdl.runtime.progress import Progress

#: For the whole of one command; a package of 30 MB over a slow line still fits.
_COMMAND_TIMEOUT_S = 900
_LOOK_SECONDS = 0.5


def fetch_debian(
    package: str, folder: Path, files: Sequence[str], target: Path, check: Callable[[Path], object]
) -> None:
    """Puts ``files`` of ``folder`` in a Debian package into the folder ``target``, without root.

    Args:
        package: name of the package, in the distribution's own archive.
        folder: absolute folder in the package.
        files: names of files in it.
        target: folder on this machine; each file appears in it whole or not at all.
        check: called with the unpacked folder before anything is put in place; raises if its files are wrong.

    Raises:
        NotFetched: there is no apt here, no network, or no such package.
    """
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise NotFetched(f"{' and '.join(missing)} not found")
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the target's own file system, for os.replace.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name).resolve()
        say(f"fetching Debian's package {package} into {target}")
        _download_package(package, scratch)
        archive = next(scratch.glob(f"{package}_*.deb"), None)
        if archive is None:
            raise NotFetched(f"apt-get download left no file {package}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(scratch / "root")], scratch)
        unpacked = scratch / "root" / folder.relative_to("/")
        absent = [file for file in files if not (unpacked / file).is_file()]
        if absent:
            raise NotFetched(f"it has no {', '.join(absent)} in {folder}")
        check(unpacked)
        put_in_place(unpacked, files, target)


@dataclass(frozen=True)
class AptCommands:
    """The commands that get a package into the working folder.

    Attributes:
        download: enough where somebody ran ``apt-get update`` on this machine.
        update, download_again: with package lists of our own, in a folder that needs no root.
    """

    download: List[str]
    update: List[str]
    download_again: List[str]


def apt_commands(package: str, state: Path) -> AptCommands:
    """Returns the commands for ``package``; ``state`` is a folder for package lists of our own."""
    apt = [
        "apt-get", "-qq",
        "-o", f"Acquire::http::Timeout={CONNECT_TIMEOUT_S}",
        "-o", f"Acquire::https::Timeout={CONNECT_TIMEOUT_S}",
        "-o", "Acquire::Retries=1",
    ]  # fmt: skip
    own = [
        "-o",
        f"Dir::State={state}",
        "-o",
        f"Dir::State::lists={state}/lists",
        "-o",
        f"Dir::Cache={state}/cache",
    ]
    return AptCommands(
        download=[*apt, "download", package],
        # Unlike a failed download, a failed update ends with 0 unless it is told otherwise.
        update=[*apt, *own, "-o", "APT::Update::Error-Mode=any", "update"],
        download_again=[*apt, *own, "download", package],
    )


def _download_package(package: str, scratch: Path) -> None:
    state = scratch / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    commands = apt_commands(package, state)
    progress = Progress(f"Debian's package {package}", None, sys.stderr)
    try:
        _run(commands.download, scratch, progress)
        return
    except NotFetched:  # No package lists on this machine, or they are too old for the archive.
        pass
    try:
        _run(commands.update, scratch)
    except NotFetched as update_failed:  # One dead source of several is no matter, if not this package's.
        try:
            _run(commands.download_again, scratch, progress)
        except NotFetched:
            raise update_failed from None
    else:
        _run(commands.download_again, scratch, progress)


def _run(command: Sequence[str], folder: Path, progress: Optional[Progress] = None) -> None:
    """Runs a command in a folder; says meanwhile how much lies in it."""
    try:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise NotFetched(one_line(str(error))) from error
    with process:
        try:
            output = _output_of(process, folder, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        said = [line for line in output.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        status = f"{command[0]} ended with status {process.returncode}"
        raise NotFetched(one_line(said[0] if said else status))


def _output_of(process: Any, folder: Path, progress: Optional[Progress]) -> str:
    end = time.monotonic() + _COMMAND_TIMEOUT_S
    while True:
        try:
            output: str = process.communicate(timeout=_LOOK_SECONDS)[0]
            return output
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                raise NotFetched(f"{process.args[0]} did not end within {_COMMAND_TIMEOUT_S} s") from None
            if progress is not None:
                progress.show(sum(path.stat().st_size for path in folder.glob("*.deb")))
