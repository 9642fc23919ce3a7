"""What the launcher of a rank told it: the variables of mpirun, srun and horovodrun, read as one place.

Synopsis::

    place = read_place(os.environ)                  # None: no launcher started this process
    place.launcher, place.rank, place.world_size    # ("openmpi", 0, 2)

The first family of variables that is there wins:

==============  ===========================================  ==========================================
launcher        variables                                    started by
==============  ===========================================  ==========================================
``hpcdl``       ``HPCDL_RANK``, ``HPCDL_WORLD_SIZE``, ...    ``hpcdl train --launcher gloo``, or a user
``horovodrun``  ``HOROVOD_RANK``, ``HOROVOD_SIZE``, ...      ``horovodrun --gloo``
``openmpi``     ``OMPI_COMM_WORLD_*``                        Open MPI's mpirun, ``horovodrun --mpi``
``hydra``       ``PMI_RANK``, ``MPI_LOCALRANKID``, ...       mpiexec of MPICH, Intel MPI, MVAPICH
``srun``        ``SLURM_PROCID``, ..., in a step only        ``srun``, whatever its ``--mpi`` is
==============  ===========================================  ==========================================

mpirun comes before Slurm, because its ranks inherit the variables of the job around them.
"""

from __future__ import annotations

import itertools
import re
from typing import List, Mapping, NamedTuple, Optional

from hpcdl.common.checks import parse_whole_number
from hpcdl.common.errors import BadInput

LAUNCHERS = ("none", "hpcdl", "horovodrun", "openmpi", "hydra", "srun")

#: What a user can do where the variables make no sense.
WAY_OUT = (
    "start the ranks with mpirun, srun or hpcdl train,"
    " or set HPCDL_RANK, HPCDL_WORLD_SIZE, HPCDL_LOCAL_RANK and HPCDL_LOCAL_WORLD_SIZE"
)

#: From this number on step ids are Slurm's own: a batch script, a shell of salloc (slurm.h).
_SLURM_MAX_NORMAL_STEP_ID = 0xFFFFFFF0


class Place(NamedTuple):
    """The numbers that a launcher gave to a rank; what it did not tell of the nodes is None."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: Optional[int]
    num_nodes: Optional[int]


class _Family(NamedTuple):
    """The variables that hold a place; "": this launcher has none."""

    launcher: str
    rank: str
    world_size: str
    local_rank: str
    local_world_size: str
    node_rank: str = ""
    num_nodes: str = ""


#: Launchers whose ranks hpcdl does not place, by the variable of the rank: who, and the variable of the world size.
_STRANGERS = {
    "PMIX_RANK": ("a PMIx server", ""),
    "FLUX_TASK_RANK": ("Flux", "FLUX_JOB_SIZE"),
    "JSM_NAMESPACE_RANK": ("jsrun", "JSM_NAMESPACE_SIZE"),
    "MV2_COMM_WORLD_RANK": ("MVAPICH's mpirun_rsh", "MV2_COMM_WORLD_SIZE"),
    "PALS_RANKID": ("HPE's PALS", ""),
    "ALPS_APP_PE": ("Cray's aprun", ""),
}

_FAMILIES = (
    _Family(
        "hpcdl",
        "HPCDL_RANK",
        "HPCDL_WORLD_SIZE",
        "HPCDL_LOCAL_RANK",
        "HPCDL_LOCAL_WORLD_SIZE",
        "HPCDL_NODE_RANK",
        "HPCDL_NUM_NODES",
    ),
    # HOROVOD_CROSS_RANK counts only nodes that have this local rank: an index of nodes where all are alike.
    _Family("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    # OMPI_COMM_WORLD_NODE_RANK is no index of nodes: it counts the processes of all jobs on this node.
    _Family(
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Family("hydra", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


def read_place(environ: Mapping[str, str]) -> Optional[Place]:
    """Reads the place of this process; None if no launcher started it.

    Raises:
        BadInput: The variables are incomplete or malformed.
    """
    in_step = _is_in_slurm_step(environ)
    for family in _FAMILIES:
        # srun --mpi=pmi2 sets PMI_RANK too, but nothing of the node: there Slurm's own variables say more.
        is_slurms_pmi = family.launcher == "hydra" and in_step and family.local_rank not in environ
        if family.rank in environ and not is_slurms_pmi:
            return _read_family(family, environ)
    return _read_slurm_step(environ) if in_step else None


def unread_rank(environ: Mapping[str, str]) -> Optional[str]:
    """Says which launcher has started a process that has no place, in a way that hpcdl does not read.

    Such a process must not believe that it is alone.

    Returns:
        A warning, where it may be alone after all: it is rank 0, and its variables do not tell of how many. None where
        there is no such launcher, or it started this process only.

    Raises:
        BadInput: There are other ranks.
    """
    for rank, (launcher, world_size) in _STRANGERS.items():
        if rank not in environ or environ.get(world_size) == "1":
            continue
        said = " ".join(f"{name}={environ[name]}" for name in (rank, world_size) if name in environ)
        if environ[rank] != "0" or world_size in environ:
            raise BadInput(
                "a rank must know its place; hpcdl does not read that of"
                f" {launcher}; received {said}; {WAY_OUT}"
            )
        return (
            f"{launcher} started this process ({said}), and it runs alone; if it is one of several, {WAY_OUT}"
        )
    return None


def unused_job(environ: Mapping[str, str]) -> Optional[str]:
    """Finds the variable of a Slurm job that has room for several ranks; for a process that has no place."""
    if "SLURM_JOB_ID" in environ:
        for name in ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"):
            if environ.get(name, "").isdecimal() and int(environ[name]) > 1:
                return name
    return None


def expand_tasks_per_node(name: str, text: str) -> List[int]:
    """Reads Slurm's short form of one number per node: ``2(x3),1`` is 2, 2, 2, 1.

    Args:
        name: The variable, for the message.
        text: Its value.
    """
    counts: List[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        if times and not times.endswith(")"):
            raise BadInput(f"{name} must be like 2(x3),1; received {text!r}; {WAY_OUT}")
        counts += [parse_whole_number(name, count)] * (parse_whole_number(name, times[:-1]) if times else 1)
    return counts


def expand_node_names(text: str) -> List[str]:
    """Reads Slurm's short form of the names of nodes: ``v[005-006],w1`` is v005, v006, w1; [] for what is none."""
    names: List[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text):
        pieces = re.split(r"(\[[^\[\]]*\])", part)
        expanded = [expand_numbers(piece[1:-1]) if piece.startswith("[") else [piece] for piece in pieces]
        names += map("".join, itertools.product(*expanded))
    return names


def expand_numbers(text: str) -> List[str]:
    """Reads Slurm's short form of numbers: ``005-006,9`` is 005, 006, 9; leaves out what is none."""
    numbers: List[str] = []
    for span in text.split(","):
        first, _, last = span.partition("-")
        if first.isdigit() and (last or first).isdigit():
            numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return numbers


def _read_family(family: _Family, environ: Mapping[str, str]) -> Place:
    rank = _number(environ, family.rank)
    world_size = _number(environ, family.world_size)
    local_rank, local_world_size = 0, 1
    if world_size > 1:
        local_rank = _number(environ, family.local_rank)
        local_world_size = _number(environ, family.local_world_size)
    node_rank = num_nodes = None
    if family.node_rank in environ or family.num_nodes in environ:
        node_rank = _number(environ, family.node_rank)
        num_nodes = _number(environ, family.num_nodes)
    elif local_world_size == world_size:
        node_rank, num_nodes = 0, 1
    return Place(family.launcher, rank, world_size, local_rank, local_world_size, node_rank, num_nodes)


def _is_in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether srun started this process; a batch script or salloc's shell has a job, but no such step."""
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID", ""))
    is_step = "SLURM_PROCID" in environ and step.isdecimal() and int(step) < _SLURM_MAX_NORMAL_STEP_ID
    # A batch script that was submitted from a shell of `srun --pty` has inherited the variables of that step.
    is_inherited = environ.get("SLURM_STEP_NUM_TASKS") == "1" and environ.get("SLURM_NTASKS", "1") != "1"
    return is_step and not is_inherited


def _read_slurm_step(environ: Mapping[str, str]) -> Place:
    world_size = _number(environ, "SLURM_STEP_NUM_TASKS")
    node_rank = _number(environ, "SLURM_NODEID")
    layout = _word(environ, "SLURM_STEP_TASKS_PER_NODE")
    tasks_per_node = expand_tasks_per_node("SLURM_STEP_TASKS_PER_NODE", layout)
    ntasks = environ.get("SLURM_NTASKS", str(world_size))
    if ntasks != str(world_size) or sum(tasks_per_node) != world_size or node_rank >= len(tasks_per_node):
        raise BadInput(
            "the variables of a Slurm step must agree; received"
            f" SLURM_STEP_NUM_TASKS={world_size}, SLURM_NTASKS={ntasks}, SLURM_STEP_TASKS_PER_NODE={layout},"
            f" SLURM_NODEID={node_rank}; a job submitted from inside a step inherits them: unset"
            f" SLURM_STEP_ID there, or {WAY_OUT}"
        )
    return Place(
        launcher="srun",
        rank=_number(environ, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_number(environ, "SLURM_LOCALID"),
        local_world_size=tasks_per_node[node_rank],
        node_rank=node_rank,
        num_nodes=len(tasks_per_node),
    )


def _word(environ: Mapping[str, str], name: str) -> str:
    if name not in environ:
        raise BadInput(f"a rank needs {name} in its environment; received none; {WAY_OUT}")
    return environ[name]


def _number(environ: Mapping[str, str], name: str) -> int:
    return parse_whole_number(name, _word(environ, name), least=0)
