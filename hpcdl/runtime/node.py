"""What else runs on this node, by Linux' word in /proc: the other ranks of this world, the launcher above this process.

Other users' processes cannot be read, and those behind a PID namespace of a container cannot be seen; what is found is
then less than what is there.

Synopsis::

    cpus_of_ranks(os.environ)           # {0: {0, 1}, 1: {0, 1}}: by local rank, the CPUs that each may use
    launcher_above(os.getpid())         # Launcher("prterun", 5505, 2), or None
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Collection, Dict, FrozenSet, List, Mapping, NamedTuple, Optional

from hpcdl.common.errors import BadInput
from hpcdl.common.launchers import Place, read_place

_PROC = Path("/proc")

#: What tells one start of a launcher from another, where it is set.
_START = (
    "PMIX_NAMESPACE",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "HPCDL_RENDEZVOUS_DIR",
    "HOROVOD_GLOO_RENDEZVOUS_PORT",
)

#: Programs whose children are ranks: those of Open MPI, PRRTE, MPICH and its kin, Slurm.
_LAUNCHERS = (
    "mpirun",
    "mpiexec",
    "orterun",
    "orterun_wrapper",
    "orted",
    "prterun",
    "prte",
    "prted",
    "mpiexec.hydra",
    "hydra_pmi_proxy",
    "slurmstepd",
)


class Launcher(NamedTuple):
    """A launcher's process on this node, and how many processes it has started here."""

    name: str
    pid: int
    num_children: int


class _Process(NamedTuple):
    name: str
    parent: int


def cpus_of_ranks(
    environ: Mapping[str, str],
    proc: Path = _PROC,
    affinity: Callable[[int], Collection[int]] = os.sched_getaffinity,
) -> Dict[int, FrozenSet[int]]:
    """Finds the ranks of this world on this node.

    Args:
        environ: Of this process, which a launcher started.
        proc: Where the kernel's files are.
        affinity: Gives the CPUs that a process may use; 0 is this process.

    Returns:
        The CPUs of each rank that was found, by local rank; this one is among them. A rank may be several processes
        (a shell, a container's starter, Python): it has the CPUs that all of them may use.
    """
    own = read_place(environ)
    if own is None:
        return {}
    found: Dict[int, FrozenSet[int]] = {own.local_rank: frozenset(affinity(0))}
    for pid in _pids(proc):
        other = _environ_of(proc, pid)
        local_rank = _local_rank_beside(own, environ, other)
        if local_rank is None or local_rank == own.local_rank:
            continue
        try:
            cpus = frozenset(affinity(pid))
        except OSError:  # it has ended
            continue
        found[local_rank] = found.get(local_rank, cpus) & cpus or cpus
    return found


def launcher_above(pid: int, proc: Path = _PROC) -> Optional[Launcher]:
    """Finds the nearest launcher among the parents of a process; None if there is none."""
    process = _read_process(proc, pid)
    while process is not None and process.parent > 0:
        pid, process = process.parent, _read_process(proc, process.parent)
        if process is not None and process.name in _LAUNCHERS:
            processes = (_read_process(proc, other) for other in _pids(proc))
            children = [child for child in processes if child is not None and child.parent == pid]
            return Launcher(process.name, pid, len(children))
    return None


def _local_rank_beside(own: Place, environ: Mapping[str, str], other: Mapping[str, str]) -> Optional[int]:
    """Gives the local rank of a process of the same start; None for any other process."""
    if any(environ.get(name) != other.get(name) for name in _START):
        return None
    try:
        place = read_place(other)
    except BadInput:
        return None
    world = (own.launcher, own.world_size, own.local_world_size)
    if place is None or (place.launcher, place.world_size, place.local_world_size) != world:
        return None
    return place.local_rank


def _pids(proc: Path) -> List[int]:
    return [int(name) for name in os.listdir(str(proc)) if name.isdigit()]


def _environ_of(proc: Path, pid: int) -> Dict[str, str]:
    """Reads the environment that a process was started with; empty where that is not allowed."""
    try:
        text = (proc / str(pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in text.split("\0"))
    return {name: value for name, _, value in pairs if name}


def _read_process(proc: Path, pid: int) -> Optional[_Process]:
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): "pid (name) state ppid ..."; the name may hold ")" and spaces.
    name, _, fields = text.partition("(")[2].rpartition(")")
    return _Process(name, int(fields.split()[1]))
