#!/bin/bash
# PSC Bridges-2, interactively: one process for each GPU of two nodes.
#
#     interact -p GPU -N 2 --ntasks-per-node=8 --gres=gpu:v100-32:8 -t 1:00:00 -A CHANGE_ME
#     bash jobs/bridges2/interactive.sh train.py --my-flag      # as often as you like
#
# Rendered by python -m hpcdl.launch.templates.

HPCDL=${HPCDL:-$HOME/hpcdl}
IMAGE=${IMAGE:-/ocean/containers/ngc/tensorflow/tensorflow_23.04-tf2-py3.sif}
LOGS=$PWD/hpcdl-logs/$SLURM_JOB_ID-$(date +%s)
mkdir -p "$LOGS" && echo "logs of the ranks: $LOGS"
unset APPTAINERENV_LD_LIBRARY_PATH SINGULARITYENV_LD_LIBRARY_PATH  # the host's libraries are not the image's
export HPCDL_SCRATCH="${LOCAL:-$RAMDISK}"
[ -d "$HPCDL_SCRATCH" ] || unset HPCDL_SCRATCH
[ -z "$HPCDL_SCRATCH" ] || export SINGULARITY_BIND="${SINGULARITY_BIND:+$SINGULARITY_BIND,}$HPCDL_SCRATCH"
end=$(squeue -h -j "$SLURM_JOB_ID" -o %e) && end=$(date -d "${end:-none}" +%s) || end=$(($(date +%s) + 3600))
export HPCDL_END_TIME=${SLURM_JOB_END_TIME:-$end}
tail -F "$LOGS/rank-0000.log" 2>/dev/null &
shown=$!

srun --nodes=2 --ntasks=16 --ntasks-per-node=8 --cpus-per-task=5 --distribution=block \
    --kill-on-bad-exit=0 --wait=300 --mpi=none --cpu-bind=cores --gpu-bind=none \
    singularity exec --nv --bind /ocean --bind "$HPCDL" --bind "$PWD" --pwd "$PWD" "$IMAGE" \
    env -u PYTHONHOME HPCDL_CONTROLLER=gloo "HPCDL_RENDEZVOUS_DIR=$LOGS/rendezvous" \
    "HPCDL_STATUS_DIR=$LOGS" OMP_NUM_THREADS=5 PYTHONNOUSERSITE=1 "PYTHONPATH=$HPCDL" PYTHONUNBUFFERED=1 \
    TF_NUM_INTEROP_THREADS=5 TF_NUM_INTRAOP_THREADS=5 \
    python3 -m hpcdl.common.rank_start --log-dir "$LOGS" -- \
    python3 -m hpcdl.runtime --strategy=horovod "$@"
status=$?

sleep 1
kill "$shown"
exit "$status"
