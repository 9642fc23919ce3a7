"""The last step before a rank begins: where it runs and where it writes, then the program itself.

The launchers start this module once per rank. It binds the process to its cores, because TensorFlow takes its
thread counts from the affinity that it finds; it sends standard output and error to the rank's own log,
because mpirun mixes the lines of ranks; it leaves a note of the process id; and it is then *replaced* by the
command, so that signals and exit statuses are those of the rank itself.

Synopsis::

    python -m hpcdl.common.rank_start --log-dir DIR --cpus 0,1/2,3 -- python -m hpcdl.runtime train.py
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.files import replace_text
from hpcdl.common.saying import say
from hpcdl.common.topology import read_topology

EXIT_NOT_FOUND = 127
#: A line in a log: what stands before it is of an earlier start.
STARTED_AGAIN = "--- hpcdl: started again ---"


def log_path(log_dir: Path, rank: int) -> Path:
    """Names the log of one rank."""
    return log_dir / f"rank-{rank:04d}.log"


def pid_path(log_dir: Path, rank: int) -> Path:
    """Names the note that holds the process id of one rank."""
    return log_dir / f"rank-{rank:04d}.pid"


def format_cpus(cpus: Sequence[Sequence[int]]) -> str:
    """Writes the CPUs of each local rank: ``((0, 1), (2, 3))`` is ``0,1/2,3``."""
    return "/".join(",".join(str(cpu) for cpu in of_rank) for of_rank in cpus)


def parse_cpus(text: str) -> Tuple[Tuple[int, ...], ...]:
    """Reads what `format_cpus` wrote."""
    return tuple(tuple(int(cpu) for cpu in of_rank.split(",")) for of_rank in text.split("/"))


def main(argv: Optional[List[str]] = None) -> int:
    """Prepares this process and becomes the command; returns only if that is impossible."""
    parser = argparse.ArgumentParser(prog="python -m hpcdl.common.rank_start")
    parser.add_argument(
        "--log-dir", type=Path, required=True, metavar="DIR", help="write rank-NNNN.log to DIR"
    )
    parser.add_argument(
        "--cpus", type=parse_cpus, metavar="LIST", help="bind local rank i to the i-th of a/b/c"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    arguments = parser.parse_args(argv)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    try:
        topology = read_topology(os.environ, socket.gethostname())
    except BadInput as problem:
        say(str(problem))
        return problem.exit_status
    if arguments.cpus is not None:
        os.sched_setaffinity(0, arguments.cpus[topology.local_rank])
    arguments.log_dir.mkdir(parents=True, exist_ok=True)
    replace_text(pid_path(arguments.log_dir, topology.rank), f"{os.getpid()}\n")
    _redirect(log_path(arguments.log_dir, topology.rank))
    # Python ignores SIGPIPE, and a background job has inherited an ignored SIGINT: back to the defaults.
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    # Slurm warns every process of a step by these. Until a run listens, and after that, they must not kill it; nor the
    # helpers that it starts.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        say(f"cannot start {command[0]}: {problem.strerror}")
    return EXIT_NOT_FOUND


def _redirect(path: Path) -> None:
    """Makes the log standard output and error, in one file description so that their order is kept."""
    log = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if os.fstat(log).st_size:
        os.write(log, f"{STARTED_AGAIN}\n".encode())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
