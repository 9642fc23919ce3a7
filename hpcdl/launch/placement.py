"""Which cores each rank of this machine gets, and the argv and environment that say so. Pure functions.

Both launchers place ranks in the same way: the launcher leaves them unbound, and ``hpcdl.common.rank_start``
binds each one to its cores before the rank's Python starts. So Open MPI 4 and 5, MPICH and Gloo give the same
masks, also in a container that may use CPUs 12 and 40 only, where mpirun's own binding differs between
versions.

Synopsis::

    placement = place(machine, np=2)
    for line in start_lines(command, placement, log_dir, os.environ, mpirun):    # mpirun=None: Gloo
        subprocess.Popen(line.argv, env=line.environ)
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.cores import format_cpu_list, has_core_to_spare
from hpcdl.common.errors import BadInput
from hpcdl.common.rank_start import format_cpus
from hpcdl.common.saying import count
from hpcdl.launch.machine import Machine
from hpcdl.launch.mpirun import Mpirun, mpirun_argv


@dataclass(frozen=True)
class Placement:
    """Where the ranks of one machine run.

    Attributes:
        num_ranks: Ranks on this machine.
        num_threads: Threads that each rank computes with: its cores, or 1 where ranks share them.
        cpus: The logical CPUs of each local rank, disjoint; None where ranks stay unbound.
        yield_when_idle: Whether Horovod's waiting thread must give its core away. It busy-waits in MPI, and
            takes a third of the speed where the rank has no core to spare: with one core, or where TensorFlow
            computes on the CPU and so fills every core.
    """

    num_ranks: int
    num_threads: int
    cpus: Optional[Tuple[Tuple[int, ...], ...]]
    yield_when_idle: bool

    def describe(self) -> str:
        """Says it in a few words, for the first line of a run."""
        ranks = "1 rank" if self.num_ranks == 1 else f"{self.num_ranks} ranks"
        each = "1 core" if self.num_threads == 1 else f"{self.num_threads} cores"
        if self.cpus is None:
            threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
            return f"{ranks}, unbound, {threads} each"
        return "{}, {} each (CPUs {})".format(ranks, each, " | ".join(map(format_cpu_list, self.cpus)))


@dataclass(frozen=True)
class StartLine:
    """A process to start: a rank, or the mpirun that starts them all (``rank`` is None)."""

    rank: Optional[int]
    argv: Tuple[str, ...]
    environ: Mapping[str, str]


def place(machine: Machine, np: int, replicas_per_process: int = 1, oversubscribe: bool = False) -> Placement:
    """Divides the machine's cores among its ranks.

    Every rank gets the same number of whole cores; cores that are left over stay free.

    Args:
        machine: Where the ranks run.
        np: Number of ranks.
        replicas_per_process: Replicas that each rank trains; on a CPU they compute at the same time, too.
        oversubscribe: Share cores and GPUs where there are too few.

    Raises:
        BadInput: More replicas than cores or GPUs, without ``oversubscribe``.
    """
    num_replicas = np * replicas_per_process
    received = (
        f"np={np}" if replicas_per_process == 1 else f"np={np} x replicas_per_process={replicas_per_process}"
    )
    num_busy = num_replicas if machine.num_gpus == 0 else np
    if num_busy > machine.num_cores and not oversubscribe:
        limited = " (the container's CPU limit)" if machine.is_limited else ""
        raise BadInput(
            f"every rank, and on a CPU every replica, needs a core; received {received} on {machine.hostname}"
            f" with {count(machine.num_cores, 'core')}{limited}; pass fewer, or --oversubscribe to share them"
        )
    if 0 < machine.num_gpus < num_replicas and not oversubscribe:
        raise BadInput(
            f"every replica needs a GPU of its own; received {received} on {machine.hostname}"
            f" with {count(machine.num_gpus, 'GPU')}; pass fewer, --oversubscribe to share GPUs,"
            " or CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )
    cores_per_rank = machine.num_cores // np
    # A container with a time limit on many cores owns none of them: pinning all containers of a host to its
    # first cores would be worse than the kernel's choice.
    bind = cores_per_rank > 0 and not machine.is_limited
    cpus = tuple(
        tuple(cpu for core in machine.cores[i * cores_per_rank : (i + 1) * cores_per_rank] for cpu in core)
        for i in range(np)
    )
    return Placement(
        num_ranks=np,
        num_threads=max(1, cores_per_rank),
        cpus=cpus if bind else None,
        yield_when_idle=not has_core_to_spare(machine.num_gpus, cores_per_rank),
    )


def start_lines(
    command: Sequence[str],
    placement: Placement,
    log_dir: Path,
    environ: Mapping[str, str],
    mpirun: Optional[Mpirun] = None,
) -> List[StartLine]:
    """Builds the command lines that start a command once per rank.

    Returns:
        One line, for mpirun; or, without it, one for each rank. The ranks' part of them is always the same:
        ``rank_start`` learns from the environment which rank it is.
    """
    log_dir = Path(os.path.abspath(str(log_dir)))  # a script may change its working folder
    cpus = [] if placement.cpus is None else ["--cpus", format_cpus(placement.cpus)]
    start = [
        sys.executable,
        "-m",
        "hpcdl.common.rank_start",
        "--log-dir",
        str(log_dir),
        *cpus,
        "--",
        *command,
    ]
    environ = {
        **rank_environ(environ, placement),
        "HPCDL_STATUS_DIR": str(log_dir),
        "HPCDL_RENDEZVOUS_DIR": str(rendezvous_dir(log_dir)),
    }
    if mpirun is not None:
        argv = mpirun_argv(mpirun, placement.num_ranks, start)
        return [StartLine(None, tuple(argv), mpi_environ(environ, placement, mpirun))]
    return [
        StartLine(rank, tuple(start), place_environ(environ, rank, placement.num_ranks))
        for rank in range(placement.num_ranks)
    ]


def rendezvous_dir(log_dir: Path) -> Path:
    """Names the folder where ranks meet whom Gloo connects; whom MPI connects need none."""
    return log_dir / "rendezvous"


def rank_environ(environ: Mapping[str, str], placement: Placement) -> Dict[str, str]:
    """Adds what every rank must find before its Python starts; a value that the user set is kept."""
    threads = str(placement.num_threads)
    ours = {
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        # The log is followed while it grows: nothing may wait in a buffer.
        "PYTHONUNBUFFERED": "1",
    }
    return {**ours, **without_world(environ)}


def mpi_environ(environ: Mapping[str, str], placement: Placement, mpirun: Mpirun) -> Dict[str, str]:
    """Adds what mpirun needs to start ranks on this machine only; a value that the user set is kept."""
    if mpirun.kind != "openmpi":
        return dict(environ)
    ours = {
        # As root, in a container, Open MPI wants to be told twice.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        # Inside a Slurm job it would start the ranks through srun, over all nodes.
        **{name: "^slurm" for name in ("OMPI_MCA_ras", "OMPI_MCA_plm", "PRTE_MCA_ras", "PRTE_MCA_plm")},
    }
    if placement.yield_when_idle:
        ours["OMPI_MCA_mpi_yield_when_idle"] = "1"
    return {**ours, **environ}


def place_environ(environ: Mapping[str, str], rank: int, np: int) -> Dict[str, str]:
    """Adds a rank's place in the world, for ranks that no MPI launcher starts."""
    return {
        **environ,
        "HPCDL_RANK": str(rank),
        "HPCDL_WORLD_SIZE": str(np),
        "HPCDL_LOCAL_RANK": str(rank),
        "HPCDL_LOCAL_WORLD_SIZE": str(np),
        "HPCDL_NODE_RANK": "0",
        "HPCDL_NUM_NODES": "1",
    }


def without_world(environ: Mapping[str, str]) -> Dict[str, str]:
    """Leaves out what an outer launcher (a world of one) said of its own rank.

    An mpirun that finds the PMI of an enclosing srun tries to become a rank of it, and hangs.
    """
    pattern = re.compile(
        r"(PMI_|PMIX_(?!MCA_)|PALS_|OMPI_COMM_WORLD_|OMPI_UNIVERSE_SIZE|OMPI_MCA_(orte|ess)_|PRTE_(?!MCA_)|MPI_LOCAL|HYDI?_"
        r"|MV2_COMM_WORLD_|JSM_NAMESPACE_|FLUX_TASK_|FLUX_JOB_SIZE$|ALPS_APP_PE$"
        r"|HPCDL_(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|NUM_NODES|RENDEZVOUS_DIR)$"
        r"|HOROVOD_(RANK|SIZE|LOCAL_RANK|LOCAL_SIZE|CROSS_RANK|CROSS_SIZE|HOSTNAME|GLOO_RENDEZVOUS_.*)$)"
    )
    return {name: value for name, value in environ.items() if not pattern.match(name)}


def shell_line(argv: Sequence[str], environ: Optional[Mapping[str, str]] = None) -> str:
    """Writes a command line that can be pasted into a shell, with the variables that it needs in front."""
    assignments = [f"{name}={shlex.quote(value)}" for name, value in sorted((environ or {}).items())]
    return " ".join([*assignments, shlex.join(argv)])
