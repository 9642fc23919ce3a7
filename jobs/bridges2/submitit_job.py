"""PSC Bridges-2 by submitit alone: one process for each GPU of two nodes.

    python jobs/bridges2/submitit_job.py train.py --my-flag

Rendered by python -m hpcdl.launch.templates.
"""

import subprocess
import sys

import submitit

RANKS = r"""
HPCDL=${HPCDL:-$HOME/hpcdl}
IMAGE=${IMAGE:-/ocean/containers/ngc/tensorflow/tensorflow_23.04-tf2-py3.sif}
LOGS=$PWD/hpcdl-logs/$SLURM_JOB_ID-$(date +%s)
mkdir -p "$LOGS" && echo "logs of the ranks: $LOGS"

srun --nodes=2 --ntasks=16 --ntasks-per-node=8 --cpus-per-task=5 --distribution=block \
    --kill-on-bad-exit=1 --wait=60 --mpi=none --cpu-bind=cores --gpu-bind=none \
    singularity exec --nv --bind /ocean --bind "$HPCDL" --bind "$PWD" --pwd "$PWD" "$IMAGE" \
    env -u PYTHONHOME HPCDL_CONTROLLER=gloo "HPCDL_RENDEZVOUS_DIR=$LOGS/rendezvous" \
    "HPCDL_STATUS_DIR=$LOGS" OMP_NUM_THREADS=5 PYTHONNOUSERSITE=1 "PYTHONPATH=$HPCDL" PYTHONUNBUFFERED=1 \
    TF_NUM_INTEROP_THREADS=5 TF_NUM_INTRAOP_THREADS=5 \
    python3 -m hpcdl.common.rank_start --log-dir "$LOGS" -- \
    python3 -m hpcdl.runtime --strategy=horovod "$@"
"""

executor = submitit.AutoExecutor(folder="hpcdl-logs/%j", cluster="slurm")
executor.update_parameters(
    slurm_account="CHANGE_ME",
    slurm_additional_parameters={"requeue": True, "signal": "URG@300"},
    slurm_cpus_per_task=5,
    slurm_gpus_per_node="v100-32:8",
    slurm_job_name="hpcdl-horovod",
    slurm_mem="0",
    slurm_nodes=2,
    slurm_ntasks_per_node=8,
    slurm_partition="GPU",
    slurm_time=120,
    slurm_use_srun=False,
)
executor._executor.update_parameters(wckey=None)  # submitit's own is refused by clusters that know no keys
job = executor.submit(subprocess.call, ["bash", "-c", RANKS, "hpcdl", *sys.argv[1:]])
print(job.job_id)
