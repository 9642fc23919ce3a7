"""The keeper of a job: one process on the host, outside of any image, that starts the ranks and sees them end.

submitit runs it. Everything it needs is in the job's folder, and what becomes of the run is written there, as
``state.json``; submitit's own result files say nothing of it.

Synopsis, as submitit calls it::

    keep("hpcdl-jobs/20261124T120000Z-train")
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Mapping

from hpcdl.common.errors import EXIT_DONE, EXIT_REQUEUE
from hpcdl.launch.container import FILE_SYSTEM, deaf_file_system, describe_image
from hpcdl.launch.local import run_ranks, tail, write_to_stdout
from hpcdl.launch.machine import read_machine
from hpcdl.launch.mpirun import find_mpirun, read_version
from hpcdl.launch.outcome import Outcome, render, summary
from hpcdl.launch.placement import place
from hpcdl.launch.submission.job import Job, read_job
from hpcdl.launch.submission.srun import run_step
from hpcdl.launch.submission.state import read_state, write_state
from hpcdl.launch.surroundings import describe_environment

#: submitit's word, from a task of its local executor, for "start me again".
_LOCAL_REQUEUE = 144
#: Slurm ends the keeper of a job that it has requeued; it waits this long for that.
_REQUEUED_WAIT_S = 120


def keep(folder: str) -> None:
    """Runs a job to its end.

    Raises:
        SystemExit: The run did not end well, so that Slurm knows it too; or it is to be started again.
    """
    path = Path(folder)
    job = read_job(path)
    before = read_state(path)
    restarts = _restarts(job, before, os.environ)
    state: Dict[str, Any] = {
        "state": "running",
        "restarts": restarts,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.time(),
        "image": describe_image(job.record["image"]) if job.record.get("image") else None,
    }
    write_state(path, state)
    with contextlib.suppress(OSError):
        text = describe_environment(read_machine(os.environ), rank_environ(job, os.environ))
        (path / "env.txt").write_text(text, encoding="utf-8")
    outcome = _run(job)
    # Whoever ends the keeper itself, as scancel does, wants no other start.
    is_wanted = outcome.stopped_by is None
    can_requeue = job.requeue and job.executor != "debug" and restarts < job.options.max_requeues
    requeue = outcome.status == EXIT_REQUEUE and is_wanted and can_requeue
    state.update(
        state=_word(outcome, requeue),
        exit_status=outcome.status,
        ended=time.time(),
        words="" if outcome.status == EXIT_DONE else summary(outcome, state["host"]),
    )
    write_state(path, state)
    if outcome.status not in (EXIT_DONE, EXIT_REQUEUE):
        print(render(outcome, state["host"], job.log_dir, tail), flush=True)
    elif outcome.status == EXIT_REQUEUE and is_wanted and not requeue:
        why = f"{restarts} restarts are enough" if job.requeue else "it must not be"
        print(f"hpcdl: stopped with a checkpoint, not requeued: {why}; submit it again to go on", flush=True)
    if requeue:
        _requeue(job)
    if outcome.status != EXIT_DONE:
        sys.exit(outcome.status)


def rank_environ(job: Job, environ: Mapping[str, str]) -> Dict[str, str]:
    """Builds the environment of what the keeper starts: the batch script's, the job's, and the frozen code first."""
    own = re.compile(r"SUBMITIT_\w+|SLURM_CPU_BIND\w*")
    inherited = {name: value for name, value in environ.items() if not own.fullmatch(name)}
    if job.layout.launcher == "here":
        # submitit's local executor has overwritten it; what the user had is in the description.
        inherited.pop("CUDA_VISIBLE_DEVICES", None)
    path = [part for part in (job.import_path, environ.get("PYTHONPATH")) if part]
    if job.bin_dir.is_dir():
        inherited["PATH"] = os.pathsep.join([str(job.bin_dir), environ.get("PATH", os.defpath)])
    return {**inherited, **({"PYTHONPATH": os.pathsep.join(path)} if path else {}), **job.environ}


def _stand_in(job: Job) -> None:
    """Puts programs into the job's folder that stand before the host's on PATH."""
    program = shutil.which(FILE_SYSTEM) if job.is_image_file else None
    if program is None or Path(program).parent == job.bin_dir:
        return
    job.bin_dir.mkdir(exist_ok=True)
    path = job.bin_dir / FILE_SYSTEM
    path.write_text(deaf_file_system(program), encoding="utf-8")
    path.chmod(0o755)


def _run(job: Job) -> Outcome:
    _stand_in(job)
    environ = rank_environ(job, os.environ)
    if job.layout.launcher != "here":
        return run_step(job.argv, environ, job.log_dir, job.cwd, write_to_stdout)
    num_ranks = job.layout.processes_per_node
    machine = read_machine(environ)
    placement = place(machine, num_ranks, job.layout.replicas_per_process, job.options.oversubscribe)
    mpirun = None
    if num_ranks > 1 and environ.get("HPCDL_CONTROLLER") == "mpi":
        mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    job.log_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.chdir(job.cwd)
    return run_ranks(job.argv, placement, job.log_dir, environ, mpirun)


def _restarts(job: Job, before: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    if job.executor == "slurm":
        return int(environ.get("SLURM_RESTART_COUNT", "0"))
    return int(before["restarts"]) + 1 if before.get("state") == "requeued" else 0


def _word(outcome: Outcome, requeue: bool) -> str:
    if outcome.status == EXIT_DONE:
        return "done"
    if outcome.stopped_by is not None:
        return "cancelled"
    if outcome.status == EXIT_REQUEUE:
        return "requeued" if requeue else "stopped"
    return "failed"


def _requeue(job: Job) -> None:
    if job.executor == "local":
        sys.exit(_LOCAL_REQUEUE)
    job_id = os.environ["SLURM_JOB_ID"]
    print(f"hpcdl: the run has saved its state; job {job_id} goes back into the queue", flush=True)
    done = subprocess.run(["scontrol", "requeue", job_id], timeout=60, check=False)
    if done.returncode == 0:
        time.sleep(_REQUEUED_WAIT_S)
