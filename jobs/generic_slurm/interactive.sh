#!/bin/bash
# Any cluster with Slurm, interactively: one process for each GPU of two nodes.
#
#     salloc -A CHANGE_ME -N 2 --ntasks-per-node=4 --cpus-per-task=8 --gpus-per-node=4 --mem=0 -t 1:00:00
#     bash jobs/generic_slurm/interactive.sh train.py --my-flag      # as often as you like
#
# Rendered by python -m hpcdl.launch.templates.

HPCDL=${HPCDL:-$HOME/hpcdl}
IMAGE=${IMAGE:-CHANGE_ME.sif}
LOGS=$PWD/hpcdl-logs/$SLURM_JOB_ID-$(date +%s)
mkdir -p "$LOGS" && echo "logs of the ranks: $LOGS"
unset APPTAINERENV_LD_LIBRARY_PATH SINGULARITYENV_LD_LIBRARY_PATH  # the host's libraries are not the image's
end=$(squeue -h -j "$SLURM_JOB_ID" -o %e) && end=$(date -d "${end:-none}" +%s) || end=$(($(date +%s) + 3600))
export HPCDL_END_TIME=${SLURM_JOB_END_TIME:-$end}
tail -F "$LOGS/rank-0000.log" 2>/dev/null &
shown=$!

srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=8 --distribution=block \
    --kill-on-bad-exit=0 --wait=300 --mpi=none --cpu-bind=cores --gpu-bind=none \
    apptainer exec --nv --bind "$HPCDL" --bind "$PWD" --pwd "$PWD" "$IMAGE" \
    env -u PYTHONHOME HPCDL_CONTROLLER=gloo "HPCDL_RENDEZVOUS_DIR=$LOGS/rendezvous" \
    "HPCDL_STATUS_DIR=$LOGS" OMP_NUM_THREADS=8 PYTHONNOUSERSITE=1 "PYTHONPATH=$HPCDL" PYTHONUNBUFFERED=1 \
    TF_NUM_INTEROP_THREADS=8 TF_NUM_INTRAOP_THREADS=8 \
    python3 -m hpcdl.common.rank_start --log-dir "$LOGS" -- \
    python3 -m hpcdl.runtime --strategy=horovod "$@"
status=$?

sleep 1
kill "$shown"
exit "$status"
