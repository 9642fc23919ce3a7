"""The Slurm allocation that this shell or batch script holds, and a run that spans it through srun.

Synopsis::

    allocation = read_allocation(os.environ)                 # None: this is no allocation
    layout = lay_out_allocation(allocation, np=16, replicas_per_process=1, launcher="gloo", mpi=None)
    srun_argv(layout, rank_command)
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Sequence

from hpcdl.common.checks import parse_whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.launchers import expand_tasks_per_node
from hpcdl.common.saying import count
from hpcdl.launch.container import LIBRARIES_FOR_IMAGES
from hpcdl.launch.submission.accounting import ask_slurm
from hpcdl.launch.submission.binding import rank_environ
from hpcdl.launch.submission.layout import Layout


@dataclass(frozen=True)
class Allocation:
    """What Slurm has given to this shell.

    Attributes:
        job_id: Slurm's job.
        num_nodes: Its nodes.
        num_tasks: Tasks that the job was asked for; None: it does not say.
        cores_per_node: The least that a node of it has.
        gpus_per_node: GPUs on each node, as far as the job's request says.
        is_here: Whether this machine is one of the nodes; salloc's shell often is on a login node.
    """

    job_id: str
    num_nodes: int
    num_tasks: Optional[int]
    cores_per_node: int
    gpus_per_node: int
    is_here: bool

    @property
    def needs_srun(self) -> bool:
        """Whether a run has to be started through srun to use it."""
        return self.num_nodes > 1 or not self.is_here


def read_allocation(
    environ: Mapping[str, str], ask: Callable[[Sequence[str]], str] = ask_slurm
) -> Optional[Allocation]:
    """Reads the variables that salloc, sbatch and srun set; None outside of an allocation.

    Args:
        environ: Of this shell.
        ask: Runs a command of Slurm's and gives what it prints; "" if it does not answer.

    Raises:
        BadInput: A variable is malformed.
    """
    if "SLURM_JOB_ID" not in environ or "SLURM_JOB_CPUS_PER_NODE" not in environ:
        return None
    nodes_name = "SLURM_JOB_NUM_NODES" if "SLURM_JOB_NUM_NODES" in environ else "SLURM_NNODES"
    num_nodes = parse_whole_number(nodes_name, environ.get(nodes_name, "1"))
    tasks = environ.get("SLURM_NTASKS", environ.get("SLURM_NPROCS"))
    num_tasks = None if tasks is None else parse_whole_number("SLURM_NTASKS", tasks)
    name = "SLURM_JOB_CPUS_PER_NODE"
    # Batch scripts and steps are told on which node they are; a shell of salloc on a login node is not.
    is_here = "SLURMD_NODENAME" in environ or "SLURM_NODEID" in environ
    gpus = _gpus(environ, num_nodes, num_tasks or num_nodes)
    if gpus is None and not is_here:  # where one is told what a node has, too
        gpus = _gpus_of_job(ask(["scontrol", "show", "job", "-o", environ["SLURM_JOB_ID"]]), num_nodes)
    return Allocation(
        job_id=environ["SLURM_JOB_ID"],
        num_nodes=num_nodes,
        num_tasks=num_tasks,
        cores_per_node=min(expand_tasks_per_node(name, environ[name])),
        gpus_per_node=gpus or 0,
        is_here=is_here,
    )


def lay_out_allocation(
    allocation: Allocation, np: Optional[int], replicas_per_process: int, launcher: str, mpi: Optional[str]
) -> Layout:
    """Lays a run out over an allocation.

    Args:
        allocation: What there is.
        np: Processes in all; None: as many as the job has tasks.
        replicas_per_process: Model copies in each.
        launcher: ``gloo`` or ``mpi``.
        mpi: srun's ``--mpi`` for ``mpi``.

    Raises:
        BadInput: They cannot be divided evenly over the nodes, or need more cores than there are.
    """
    nodes = allocation.num_nodes
    wanted = np or allocation.num_tasks or nodes
    if wanted % nodes:
        received = f"np={np}" if np else f"{wanted} tasks, as the job has,"
        raise BadInput(
            f"every node must have the same number of processes; received {received} on the {nodes} nodes of job"
            f" {allocation.job_id}; pass --np with a multiple of {nodes}"
        )
    each = wanted // nodes
    if each > allocation.cores_per_node:
        raise BadInput(
            f"every rank needs a core; received np={wanted} on {count(nodes, 'node')} with"
            f" {count(allocation.cores_per_node, 'core')} of job {allocation.job_id}; pass fewer, or ask Slurm for more"
            " (--oversubscribe is for ranks on one machine)"
        )
    cores = allocation.cores_per_node // each
    return Layout(
        num_nodes=nodes,
        processes_per_node=each,
        cores_per_process=cores,
        gpus_per_node=allocation.gpus_per_node,
        gpu_type=None,
        memory_mb=None,
        time_limit_min=0,
        partition=None,
        qos=None,
        constraint=None,
        whole_nodes=False,
        strategy="auto",
        replicas_per_process=replicas_per_process,
        launcher=launcher,
        srun_options=(
            f"--mpi={mpi if launcher == 'mpi' else 'none'}",
            "--cpu-bind=cores",
            *(["--gpu-bind=none"] if allocation.gpus_per_node else []),
            "--overlap",  # the shell itself may be a step that holds the cores
        ),
        environ=rank_environ(launcher, cores, allocation.gpus_per_node),
    )


def find_end_time(
    job_id: str,
    environ: Mapping[str, str],
    ask: Callable[[Sequence[str]], str] = ask_slurm,
    parse: Callable[[str], float] = lambda text: time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")),
) -> Optional[float]:
    """Asks when an allocation ends, in seconds since 1970; None if Slurm does not say.

    Args:
        job_id: Slurm's job.
        environ: May say it already: Slurm does from 23.02 on.
        ask: Runs a command of Slurm's and gives what it prints; "" if it does not answer.
        parse: Reads a local time.
    """
    said = environ.get("SLURM_JOB_END_TIME", "")
    if said.isdigit():
        return float(said)
    try:
        return parse(ask(["squeue", "-h", "-j", job_id, "-o", "%e"]).strip())
    except ValueError:
        return None


def end_time_environ(
    allocation: Optional[Allocation],
    environ: Mapping[str, str],
    find: Callable[[str, Mapping[str, str]], Optional[float]] = find_end_time,
) -> Dict[str, str]:
    """Gives the variable that tells ranks when their allocation ends, unless the user has told it."""
    if allocation is None or environ.get("HPCDL_END_TIME"):
        return {}
    end = find(allocation.job_id, environ)
    return {} if end is None else {"HPCDL_END_TIME": f"{end:.0f}"}


def choose_mpi_type(environ: Mapping[str, str], types: Sequence[str]) -> str:
    """Chooses srun's ``--mpi`` where no profile says it.

    Raises:
        BadInput: Slurm has no way that Open MPI or MPICH speak.
    """
    named = environ.get("SLURM_MPI_TYPE")
    for name in ([named] if named else []) + ["pmix", "pmi2"]:
        if name in types:
            return name
    raise BadInput(
        f"--launcher mpi needs a PMI of Slurm's; `srun --mpi=list` has {', '.join(types) or 'none'}; pass"
        " --launcher gloo"
    )


def environ_for_step(environ: Mapping[str, str]) -> Dict[str, str]:
    """Leaves out what binds a step to the one around it, and what would bring the host's libraries into an image."""
    left_out = re.compile("|".join([r"SLURM_CPU_BIND\w*", *LIBRARIES_FOR_IMAGES]))
    return {name: value for name, value in environ.items() if not left_out.fullmatch(name)}


def _gpus(environ: Mapping[str, str], num_nodes: int, num_tasks: int) -> Optional[int]:
    """Counts the GPUs of a node by what Slurm says of one, of each task, or of the whole job; None: nothing."""
    tasks_per_node = -(-num_tasks // num_nodes)
    for name, times, nodes in (
        ("SLURM_GPUS_PER_NODE", 1, 1),
        ("SLURM_GPUS_ON_NODE", 1, 1),
        ("SLURM_GPUS_PER_TASK", tasks_per_node, 1),
        ("SLURM_GPUS", 1, num_nodes),
    ):
        numbers = [part.rpartition(":")[2] for part in environ.get(name, "").split(",")]  # v100:2,a100:1
        if all(number.isdigit() for number in numbers):
            return -(-times * sum(map(int, numbers)) // nodes)
    indices = [index for index in environ.get("SLURM_JOB_GPUS", "").split(",") if index]
    return len(indices) or None


def _gpus_of_job(text: str, num_nodes: int) -> int:
    """Counts the GPUs of a node by ``scontrol show job -o``: of all that the job has, else of those it asked for."""
    of_job = re.findall(r"\bgres/gpu=(\d+)", text)
    each = re.search(r"\bTresPerNode=\S*\bgpu(?::[^:,\s]+)?:(\d+)", text)
    if of_job:
        return -(-int(of_job[-1]) // num_nodes)  # what was asked for comes before what it has
    return int(each.group(1)) if each else 0
