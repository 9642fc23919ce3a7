"""How srun binds ranks and connects them, and what every rank finds in its environment. Pure functions.

Synopsis::

    srun_options(site, "gloo", processes=8, replicas=1, num_gpus=8)
    rank_environ("gloo", cores=5, num_gpus=8)
"""

from __future__ import annotations

import re
from typing import Dict, Tuple

from hpcdl.common.cores import has_core_to_spare
from hpcdl.launch.sites.profile import Site


def srun_options(site: Site, launcher: str, processes: int, replicas: int, num_gpus: int) -> Tuple[str, ...]:
    """Chooses how srun connects and binds ranks at a site."""
    bind = site.cpu_bind or "cores"
    # A list of masks is for as many processes as it has masks.
    is_list = re.match(r"(mask|map)_cpu:", bind) is not None
    if is_list and bind.count(",") + 1 != processes:
        bind = "cores"
    return (
        f"--mpi={site.mpi if launcher == 'mpi' else 'none'}",
        *([f"--cpu-bind={bind}"] if bind != "none" else []),
        # Ranks of a node that do not see each other's GPUs lose NCCL's direct path: each picks its own by itself.
        *([f"--gpu-bind={site.gpu_bind or 'none'}"] if num_gpus else []),
        *([f"--gpus-per-task={replicas}"] if num_gpus and site.gpu_request == "gpus-per-task" else []),
        *site.srun_args,
    )


def rank_environ(launcher: str, cores: int, num_gpus: int) -> Dict[str, str]:
    """Builds what every rank of a Slurm step must find before its Python starts."""
    threads = str(cores)
    environ = {
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "HPCDL_CONTROLLER": "gloo" if launcher == "gloo" else "mpi",
    }
    if launcher != "gloo" and not has_core_to_spare(num_gpus, cores):
        environ["OMPI_MCA_mpi_yield_when_idle"] = "1"  # Horovod's waiting thread takes a core otherwise
    return environ
