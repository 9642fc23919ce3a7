"""The configuration of the private Slurm, as text. Pure functions.

Synopsis::

    (folder / "etc" / "slurm.conf").write_text(slurm_conf(plan))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List

LOGIN = "login"


@dataclass(frozen=True)
class Plan:
    """What the cluster is made of.

    Attributes:
        folder: Where all its files are; seen by all nodes.
        num_nodes: Nodes, named node1, node2, ...
        cores: Cores of each, as far as Slurm believes.
        gpus: GPUs of each: device files that stand for them.
        memory_mb: Memory of each, likewise.
        user: Who runs the daemons.
    """

    folder: Path
    num_nodes: int = 2
    cores: int = 2
    gpus: int = 2
    memory_mb: int = 8000
    user: str = "root"

    @property
    def nodes(self) -> List[str]:
        """Names of the nodes."""
        return [f"node{number}" for number in range(1, self.num_nodes + 1)]


def address(number: int) -> str:
    """Gives the address of a node, counted from 1; 0 is the login node's."""
    return f"10.77.0.{10 + number if number else 1}"


def hosts(plan: Plan) -> str:
    """Writes /etc/hosts, for all nodes."""
    rows = [("127.0.0.1", "localhost"), (address(0), LOGIN)]
    rows += [(address(number), name) for number, name in enumerate(plan.nodes, start=1)]
    return "".join(f"{one} {name}\n" for one, name in rows)


def slurm_conf(plan: Plan) -> str:
    """Writes slurm.conf."""
    box = plan.folder
    settings = {
        "ClusterName": "tests",
        "SlurmctldHost": f"{LOGIN}({address(0)})",
        "AuthType": "auth/munge",
        "CryptoType": "crypto/munge",
        # A job that is requeued waits as long as its old credential is good: 120 s by default. At 5 s it was seen to
        # expire too early on a node that had just booted.
        "AuthInfo": f"socket={box}/munge/sock,cred_expire=15",
        "SlurmUser": plan.user,
        "SlurmdUser": plan.user,
        "MpiDefault": "none",
        "EnforcePartLimits": "ALL",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "ReturnToService": "2",
        "SlurmctldPidFile": f"{box}/run/slurmctld.pid",
        "SlurmdPidFile": f"{box}/run/slurmd.%n.pid",
        # One path on every node, and there a mount of the node's own: the plugin for PMIx does not expand %n.
        "SlurmdSpoolDir": f"{box}/spool/self",
        "StateSaveLocation": f"{box}/state",
        "SlurmctldLogFile": f"{box}/log/slurmctld.log",
        "SlurmdLogFile": f"{box}/log/slurmd.%n.log",
        "SwitchType": "switch/none",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides",
        "GresTypes": "gpu",
        "JobRequeue": "1",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "PropagateResourceLimits": "NONE",
        "SlurmdTimeout": "10",
        "KillWait": "5",
        "MinJobAge": "300",
        "TCPTimeout": "2",
        "CompleteWait": "0",
        "EpilogMsgTime": "0",
    }
    rows = [f"{name}={value}" for name, value in settings.items()]
    for number, name in enumerate(plan.nodes, start=1):
        gres = f" Gres=gpu:{plan.gpus}" if plan.gpus else ""
        what = f"CPUs={plan.cores} RealMemory={plan.memory_mb}{gres} State=UNKNOWN"
        rows.append(f"NodeName={name} NodeHostname={name} NodeAddr={address(number)} Port=6818 {what}")
    rows.append("PartitionName=batch Nodes=ALL Default=YES MaxTime=1:00:00 DefaultTime=0:05:00 State=UP")
    rows.append("PartitionName=short Nodes=ALL MaxTime=0:02:00 MaxNodes=1 State=UP")
    return "\n".join(rows) + "\n"


def gres_conf(plan: Plan) -> str:
    """Writes gres.conf; the device files are character devices, and slurmd only looks at their names."""
    if not plan.gpus:
        return ""
    return f"NodeName=node[1-{plan.num_nodes}] Name=gpu File={plan.folder}/etc/gpu[0-{plan.gpus - 1}]\n"


def node_script(plan: Plan, number: int, shared: List[Path]) -> str:
    """Writes what the first process of a node runs.

    Args:
        plan: The cluster.
        number: Of the node, from 1.
        shared: Folders below /tmp that all nodes see; the rest of /tmp is the node's own.
    """
    box, name = plan.folder, plan.nodes[number - 1]
    own = f"{box}/spool/{name}"
    lines = [
        "set -eu",
        f"hostname {name}",
        "mount --make-rprivate /",
        "mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        f"mkdir -p {own}/slurmd {own}/tmp {box}/spool/self",
        f"mount --bind {own}/slurmd {box}/spool/self",
        f"chmod 1777 {own}/tmp",
    ]
    for folder in shared:
        inner = f"{own}/tmp/{folder.relative_to('/tmp')}"
        lines += [f"mkdir -p '{inner}'", f"mount --rbind '{folder}' '{inner}'"]
    lines += [
        f"mount --rbind {own}/tmp /tmp",
        "ip link set lo up",
        "until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done",
        f"ip address add {address(number)}/24 dev eth0",
        "ip link set eth0 up",
        # -b: say that the node has booted; its uptime is the machine's.
        f"slurmd -b -N {name}",
        "while :; do sleep 1 & wait; done",
    ]
    return "\n".join(lines) + "\n"
