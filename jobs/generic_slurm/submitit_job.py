"""Any cluster with Slurm by submitit: runs horovod.sbatch, which stands beside this file.

    python jobs/generic_slurm/submitit_job.py train.py --my-flag

Rendered by python -m hpcdl.launch.templates.
"""

import subprocess
import sys
from pathlib import Path

import submitit

script = Path(__file__).resolve().with_name("horovod.sbatch")
executor = submitit.AutoExecutor(folder="hpcdl-logs/%j", cluster="slurm")
executor.update_parameters(
    slurm_account="CHANGE_ME",
    slurm_additional_parameters={"requeue": True, "signal": "URG@300"},
    slurm_cpus_per_task=8,
    slurm_exclusive=True,
    slurm_gpus_per_node="4",
    slurm_job_name="hpcdl-horovod",
    slurm_mem="0",
    slurm_nodes=2,
    slurm_ntasks_per_node=4,
    slurm_time=120,
    slurm_use_srun=False,
)
executor._executor.update_parameters(wckey=None)  # submitit's own is refused by clusters that know no keys
print(executor.submit(subprocess.check_call, ["bash", str(script), *sys.argv[1:]]).job_id)
