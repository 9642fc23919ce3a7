"""The words that start a command once per rank of a job: srun's, or those of the host's mpirun. Pure functions.

Synopsis::

    srun_argv(layout, ["python3", "train.py"])
"""

from __future__ import annotations

from typing import List, Sequence

from hpcdl.launch.submission.layout import Layout


def srun_argv(layout: Layout, command: Sequence[str], watched: bool = True) -> List[str]:
    """Builds the srun that starts a command once per rank, numbered node by node as Horovod needs it.

    Args:
        layout: Where the ranks run.
        command: What each one runs.
        watched: Whether a keeper ends ranks that are left behind. Otherwise srun does, but not at once, since it
            takes a rank that left to be requeued for one that failed, and would end the others, of which rank 0 still
            writes: after as long as a job is warned before its end.
    """
    return [
        "srun",
        f"--nodes={layout.num_nodes}",
        f"--ntasks={layout.world_size}",
        f"--ntasks-per-node={layout.processes_per_node}",
        # Slurm 22.05 to 23.02 do not pass the job's own on to srun.
        *([f"--cpus-per-task={layout.cores_per_process}"] if layout.cores_per_process is not None else []),
        "--distribution=block",
        "--kill-on-bad-exit=0",
        f"--wait={0 if watched else layout.stop_margin_s}",
        *layout.srun_options,
        *command,
    ]


def mpirun_argv(layout: Layout, command: Sequence[str]) -> List[str]:
    """Builds the mpirun of the host that starts a command once per rank of the allocation."""
    return [
        "mpirun",
        "-np",
        str(layout.world_size),
        "--map-by",
        f"ppr:{layout.processes_per_node}:node",
        "--bind-to",
        "none",
        *command,
    ]
