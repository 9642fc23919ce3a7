"""Gets a data set that is not on this machine: from Debian's package, without root, or by Keras' download.

Several ranks, perhaps of several nodes on one file system, come here at once: one fetches, the others wait.

Synopsis::

    with one_at_a_time(cache / "fashion_mnist.lock") as turn:
        if turn.reason:                          # the one before us tried, and this is why it failed
            ...
        fetch_debian(package, Path("/usr/share/datasets/x"), files, target=cache / "x", check=verify)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, TextIO

import numpy as np

from hpcdl.common.saying import say

#: A host that does not answer is given up after this time: compute nodes often have no way out at all.
_CONNECT_TIMEOUT_S = 20
#: For the whole of one command; a package of 30 MB over a slow line still fits.
_COMMAND_TIMEOUT_S = 900


class NotFetched(Exception):
    """A way of getting the data did not work here; the text is the reason, without a full stop."""


class Turn:
    """One rank's turn under the lock.

    Attributes:
        reason: why the rank for which this one waited failed; None if it did not, or there was none.
    """

    def __init__(self, file: Optional[TextIO], reason: Optional[str]):
        self._file = file
        self.reason = reason

    def failed(self, reason: str) -> None:
        """Tells those who wait, so that each of them need not wait for the same dead network in turn."""
        if self._file is not None:
            self._file.write(reason)
            self._file.flush()


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[Turn]:
    """Lets one process at a time through, over all nodes that share the file system where that can lock.

    Where it cannot (Lustre without ``-o flock``), all go through: files are put in place by atomic renames,
    so the lock only spares work.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+", encoding="utf-8") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield Turn(None, None)
            return
        file.seek(0)
        reason = file.read() if waited else ""
        if not reason:  # Old news: nobody was at work when this process came.
            file.truncate(0)
        yield Turn(file, reason or None)


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
        target.mkdir(exist_ok=True)
        for file in files:
            os.replace(unpacked / file, target / file)


def fetch_keras(name: str) -> Dict[str, np.ndarray]:
    """Returns the arrays of ``keras.datasets.<name>`` by Keras' download, which keeps them in Keras' cache.

    Raises:
        NotFetched: no network, or the server refused.
    """
    from tensorflow import keras

    say(f"downloading {name} by keras.datasets.{name}.load_data()")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_TIMEOUT_S)  # Keras sets none, and a dropped packet would hang the job.
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Its progress bar is no result.
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception for every failure of the transfer.
        raise NotFetched(_one_line(str(error)) or type(error).__name__) from error
    finally:
        socket.setdefaulttimeout(before)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


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
        "-o", f"Acquire::http::Timeout={_CONNECT_TIMEOUT_S}",
        "-o", f"Acquire::https::Timeout={_CONNECT_TIMEOUT_S}",
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
    try:
        _run(commands.download, scratch)
        return
    except NotFetched:  # No package lists on this machine, or they are too old for the archive.
        pass
    try:
        _run(commands.update, scratch)
    except NotFetched as update_failed:  # One dead source of several is no matter, if not this package's.
        try:
            _run(commands.download_again, scratch)
        except NotFetched:
            raise update_failed from None
    else:
        _run(commands.download_again, scratch)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFetched(_one_line(str(error))) from error
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
        raise NotFetched(_one_line(said[0] if said else f"{command[0]} ended with status {done.returncode}"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
