"""Who am I? The place of this process among those that a launcher started, and the strategy that fits there.

Synopsis::

    topology = read_topology(os.environ, socket.gethostname())
    choice = choose_strategy("auto", None, topology, num_devices=4, device_kind="GPU")
    print(topology.rank, topology.world_size, choice.strategy, choice.replicas)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, NamedTuple, Optional, Tuple

from hpcdl.common.checks import one_of, whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.launchers import LAUNCHERS, WAY_OUT, read_place, unread_rank, unused_job

STRATEGIES = ("auto", "single", "mirrored", "horovod", "hybrid")


@dataclass(frozen=True)
class Topology:
    """The place of one process in its world; checked when it is made.

    Attributes:
        rank: Index of this process among all, from 0.
        world_size: Number of processes.
        local_rank: Index of this process among those on its node, from 0.
        local_world_size: Number of processes on this node.
        node_rank: Index of this node, from 0; None where the launcher does not tell.
        num_nodes: Number of nodes; None where the launcher does not tell.
        hostname: Name of this node; in a step of Slurm's as Slurm names it.
        launcher: Who started the world, one of `LAUNCHERS`.
        warnings: What the user should know, one line each.
        node_list: The names of all nodes in Slurm's short form; "" where the launcher does not tell.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: Optional[int]
    num_nodes: Optional[int]
    hostname: str
    launcher: str
    warnings: Tuple[str, ...] = ()
    node_list: str = ""

    def __post_init__(self) -> None:
        one_of("launcher", self.launcher, LAUNCHERS)
        rules = [
            ("0 <= rank < world size", 0 <= self.rank < self.world_size),
            ("0 <= local rank < local world size", 0 <= self.local_rank < self.local_world_size),
            ("local world size <= world size", self.local_world_size <= self.world_size),
            ("local rank <= rank", self.local_rank <= self.rank),
        ]
        if self.num_nodes is not None:
            others = self.world_size - self.local_world_size
            rules.append(("every other node has a process", 1 <= self.num_nodes <= 1 + others))
            rules.append(("one node has all processes", self.num_nodes != 1 or others == 0))
        if self.num_nodes is not None and self.node_rank is not None:
            rules.append(("0 <= node rank < number of nodes", 0 <= self.node_rank < self.num_nodes))
        broken = [rule for rule, holds in rules if not holds]
        if broken:
            raise BadInput(
                f"a place in the world needs {' and '.join(broken)}; received rank {self.rank} of"
                f" {self.world_size}, local rank {self.local_rank} of {self.local_world_size}, node"
                f" {self.node_rank} of {self.num_nodes} (launcher {self.launcher}); {WAY_OUT}"
            )

    @property
    def is_rank_0(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @classmethod
    def alone(cls, hostname: str, warnings: Tuple[str, ...] = ()) -> Topology:
        """Makes the world of one process that no launcher started."""
        return cls(0, 1, 0, 1, 0, 1, hostname, "none", warnings)


def read_topology(environ: Mapping[str, str], hostname: str) -> Topology:
    """Reads the place of this process from the variables that its launcher set (see `launchers`).

    A batch script and a shell of salloc know how many tasks their Slurm job has, but are no rank of it: such
    a process is alone, and the topology carries a warning that names the cure.

    Args:
        environ: The environment of the process.
        hostname: Name of this node.

    Raises:
        BadInput: The variables are incomplete, malformed or contradict each other, or are of a launcher that hpcdl
            does not know.
    """
    place = read_place(environ)
    if place is not None:
        nodes = ""
        if place.launcher == "srun":
            # Slurm's name, other than the machine's, has no domain.
            hostname = environ.get("SLURMD_NODENAME", hostname)
            nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
        return Topology(hostname=hostname, node_list=nodes, **place._asdict())
    stranger = unread_rank(environ)
    unused = unused_job(environ)
    if unused is None:
        return Topology.alone(hostname, (stranger,) if stranger else ())
    warning = (
        f"{unused}={environ[unused]}, but srun did not start this process, so it runs alone;"
        " start the ranks with `srun python SCRIPT` or `hpcdl train --np N SCRIPT`"
    )
    return Topology.alone(hostname, (warning,))


class Choice(NamedTuple):
    """A strategy and its replicas per process; world size x replicas is num_replicas."""

    strategy: str
    replicas: int


def choose_strategy(
    requested: str, replicas: Optional[int], topology: Topology, num_devices: int, device_kind: str
) -> Choice:
    """Chooses how the devices of this node are used.

    P is the world size, L the local world size, D the number of devices, R the replicas per process. Without
    ``replicas``, R is D / L; on a CPU, and where a rank sees one device (its launcher gave it one), R is 1.

    =========  =======  ==========  ============================================
    requested  P        R           strategy
    =========  =======  ==========  ============================================
    auto       1        1           single
    auto       1        > 1         mirrored
    auto       > 1      1           horovod
    auto       > 1      > 1         hybrid
    single     1        1           single (further devices stay idle)
    mirrored   1        any         mirrored (of one replica on a CPU by default)
    horovod    any      1           horovod (further devices stay idle)
    hybrid     any      > 1         hybrid
    =========  =======  ==========  ============================================

    Anything else is refused, and so are devices that L does not divide and more replicas than devices.

    Args:
        requested: One of `STRATEGIES`.
        replicas: Replicas per process; None lets the devices decide.
        topology: The place of this process.
        num_devices: Accelerators that this process sees; not read for a CPU, which holds any number.
        device_kind: ``GPU`` or ``CPU``.

    Raises:
        BadInput: The strategy, the world and the devices do not fit.
    """
    one_of("strategy", requested, STRATEGIES)
    one_of("device_kind", device_kind, ("GPU", "CPU"))
    devices = whole_number("num_devices", num_devices, least=0) if device_kind == "GPU" else 0
    if replicas is None:
        replicas = 1 if requested in ("single", "horovod") else _replicas_that_fill(devices, topology)
    replicas = whole_number("replicas", replicas)
    strategy = requested if requested != "auto" else _strategy_of(topology.world_size, replicas)
    _check_fit(strategy, replicas, topology.world_size)
    local = topology.local_world_size
    is_own_device = devices == 1 and replicas == 1
    if devices and local * replicas > devices and not is_own_device:
        raise BadInput(
            f"each replica needs a device of its own; received {local} processes x {replicas} replicas"
            f" and {devices} devices in sight; start fewer processes, pass fewer replicas, or let each process see all"
            " devices of its node (srun --gpu-bind=none, without --gpus-per-task)"
        )
    return Choice(strategy, replicas)


def own_devices(num_visible: int, replicas: int, local_rank: int) -> range:
    """Gives the indices of a process's GPUs among those that it sees; `choose_strategy` has seen that they are there.

    A rank whose launcher shows it no more GPUs than it needs uses them from the first on.
    """
    first = 0 if num_visible <= replicas else local_rank * replicas
    return range(first, first + replicas)


def _replicas_that_fill(devices: int, topology: Topology) -> int:
    local = topology.local_world_size
    if devices <= 1:
        return 1
    if devices % local:
        raise BadInput(
            f"the processes of a node must share its devices evenly; received {local} processes and {devices}"
            f" devices; start a number of processes per node that divides {devices}, or pass replicas"
        )
    return devices // local


def _strategy_of(world_size: int, replicas: int) -> str:
    if world_size == 1:
        return "single" if replicas == 1 else "mirrored"
    return "horovod" if replicas == 1 else "hybrid"


def _check_fit(strategy: str, replicas: int, world_size: int) -> None:
    fitting = _strategy_of(world_size, replicas)
    rules = {
        "single": ("one process with one replica", world_size == 1 and replicas == 1),
        "mirrored": ("one process with any number of replicas", world_size == 1),
        "horovod": ("any number of processes with one replica each", replicas == 1),
        "hybrid": ("any number of processes with more than one replica each", replicas > 1),
    }
    rule, holds = rules[strategy]
    if not holds:
        raise BadInput(
            f"strategy {strategy} is {rule}; received world size {world_size} and {replicas} replicas per"
            f" process; use strategy {fitting}, or change --np or --replicas-per-process"
        )
