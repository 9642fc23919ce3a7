"""What a rank does for itself before Horovod starts; most of it where no ``hpcdl train`` has placed the rank.

Threads are taken from the cores that this rank may use and does not share; Horovod's waiting thread, which in Open MPI
spins on a core that the rank needs, is told to give it away, and to ask the other ranks less often; and what costs
speed is said in one line each, on rank 0.

Synopsis::

    settings = settle(topology, os.environ, num_gpus=0)
    os.environ.update(settings.environ)                  # before Horovod starts
    settings.num_threads                                 # for tf.config.threading
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Callable, Dict, FrozenSet, List, Mapping, Optional, Tuple

from hpcdl.common.cores import format_cpu_list, group_cores, has_core_to_spare, siblings_of
from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology
from hpcdl.runtime.node import Launcher, cpus_of_ranks, launcher_above
from hpcdl.runtime.rendezvous import meets_by_gloo

#: Makes Open MPI give a core away while it waits.
YIELD_WHEN_IDLE = "OMPI_MCA_mpi_yield_when_idle"

#: How often Horovod's thread asks the other ranks what there is to sum. It does so at any time, also when nothing is:
#: where a rank computes on all of its cores, each time takes one of them away, and Horovod's own 1 ms a tenth of the
#: speed (docs/benchmarking.md). Waiting longer costs a step as long a wait.
CYCLE_TIME = "HOROVOD_CYCLE_TIME"
_CYCLE_MS = "3"

#: How each launcher is asked for K cores per rank.
_BINDING = {
    "openmpi": "mpirun --map-by slot:PE={cores} --bind-to core",
    "hydra": "mpiexec -bind-to core:{cores}",
    "srun": "srun --cpus-per-task={cores} --cpu-bind=cores",
}

CpusOfRanks = Mapping[int, FrozenSet[int]]


@dataclass(frozen=True)
class Settings:
    """What a rank sets before Horovod starts.

    Attributes:
        num_threads: For TensorFlow to compute with; None: as it likes.
        environ: Variables for MPI.
        warnings: What costs speed, one line each; on rank 0 only.
    """

    num_threads: Optional[int] = None
    environ: Mapping[str, str] = field(default_factory=dict)
    warnings: Tuple[str, ...] = ()


def settle(topology: Topology, environ: Mapping[str, str], num_gpus: int) -> Settings:
    """Finds out what this rank has to set.

    Args:
        topology: The place of this process.
        environ: Its environment.
        num_gpus: GPUs that it sees.

    Raises:
        BadInput: A launcher started several processes, but none of its variables reached this one.
    """
    if topology.launcher == "none":
        check_alone(launcher_above(os.getpid()))
    if topology.world_size == 1:
        return Settings()
    said = environ.get("TF_NUM_INTRAOP_THREADS", "")
    threads = int(said) if said.isdecimal() and int(said) else None
    if environ.get("HPCDL_STATUS_DIR"):  # the launcher of hpcdl has placed this rank
        return Settings(threads, ask_less_often(environ, num_gpus, threads or 1))
    of_ranks = cpus_of_ranks(environ)
    cores = own_cores(topology, of_ranks, os.cpu_count() or 1, siblings_of)
    yielding, waiting = end_busy_wait(
        topology, environ, num_gpus, cores, is_mpi_up="mpi4py.MPI" in sys.modules
    )
    warnings = [line for line in (sharing(topology, of_ranks, cores), waiting) if line]
    variables = {**yielding, **ask_less_often(environ, num_gpus, cores)}
    return Settings(threads or cores, variables, tuple(warnings) if topology.is_rank_0 else ())


def check_alone(launcher: Optional[Launcher]) -> None:
    """Refuses a process without a place in the world that a launcher has started among several.

    Each of them would train by itself, and write over the others' files.
    """
    if launcher is not None and launcher.num_children > 1:
        raise BadInput(
            f"a rank must know its world; {launcher.name} (process {launcher.pid}) started"
            f" {launcher.num_children} processes here, and this one received none of its variables; let them through"
            " (no env -i, no --cleanenv), or set HPCDL_RANK=0 HPCDL_WORLD_SIZE=1 for a process that is to be alone"
        )


def own_cores(
    topology: Topology, of_ranks: CpusOfRanks, num_cpus: int, siblings: Callable[[int], Tuple[int, ...]]
) -> int:
    """Counts the physical cores that are this rank's share, at least 1.

    A core that k ranks may use counts 1 / k. Ranks of this node that were not found are taken to be unbound if this one
    is, and else to have other cores.

    Args:
        topology: The place of this process.
        of_ranks: The CPUs of each rank that was found, by local rank.
        num_cpus: Logical CPUs of this machine.
        siblings: Gives all CPUs of a CPU's core.
    """
    own = of_ranks.get(topology.local_rank, frozenset())
    unseen = topology.local_world_size - len(of_ranks) if len(own) >= num_cpus else 0
    share = Fraction(0)
    for core in group_cores(own, siblings):
        whole = {*core, *siblings(core[0])}
        users = sum(1 for cpus in of_ranks.values() if not cpus.isdisjoint(whole))
        share += Fraction(1, users + unseen)
    return max(1, int(share))


def sharing(topology: Topology, of_ranks: CpusOfRanks, cores: int) -> Optional[str]:
    """Says which CPUs several ranks share, and what to do; None if they share none."""
    users: Dict[int, List[int]] = {}
    for local_rank, cpus in of_ranks.items():
        for cpu in cpus:
            users.setdefault(cpu, []).append(local_rank)
    shared = {cpu: ranks for cpu, ranks in users.items() if len(ranks) > 1}
    if not shared:
        return None
    num_ranks = len({rank for ranks in shared.values() for rank in ranks})
    if num_ranks > len(users):
        cure = f"start at most {len(users)} on a node like this"
    else:
        binding = _BINDING.get(topology.launcher, "hpcdl train --np N").format(cores=cores)
        cure = f"bind each to cores of its own, e.g. {binding}"
    cpus_text = format_cpu_list(shared)
    return (
        f"{num_ranks} ranks on {topology.hostname} share CPUs {cpus_text}, and slow each other down; {cure}"
    )


def end_busy_wait(
    topology: Topology, environ: Mapping[str, str], num_gpus: int, cores: int, is_mpi_up: bool
) -> Tuple[Dict[str, str], Optional[str]]:
    """Ends Open MPI's busy wait where a rank has no core to spare for it.

    Returns:
        Variables to set, and what to say.
    """
    uses_gloo = meets_by_gloo(topology, environ.get("HPCDL_CONTROLLER") or None, environ)
    is_said = YIELD_WHEN_IDLE in environ
    if topology.launcher != "openmpi" or uses_gloo or has_core_to_spare(num_gpus, cores) or is_said:
        return {}, None
    if is_mpi_up:
        return {}, (
            "Open MPI waits busily, which takes a third of the speed where a rank has no core to spare, and mpi4py has"
            f" started it already; set {YIELD_WHEN_IDLE}=1 before mpirun, or import mpi4py after hpcdl.init()"
        )
    return {YIELD_WHEN_IDLE: "1"}, (
        f"the ranks have no core to spare for Open MPI's busy wait, so init() has set {YIELD_WHEN_IDLE}=1;"
        " set it to 1 or 0 before mpirun to decide by yourself"
    )


def ask_less_often(environ: Mapping[str, str], num_gpus: int, cores: int) -> Dict[str, str]:
    """Makes Horovod's thread ask less often where a rank has no core to spare for it, unless the user decides."""
    if CYCLE_TIME in environ or has_core_to_spare(num_gpus, cores):
        return {}
    return {CYCLE_TIME: _CYCLE_MS}
