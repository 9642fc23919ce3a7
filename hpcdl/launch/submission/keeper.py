"""The keeper of a job: one process on the host, outside of any image, that starts the ranks and sees them end.

submitit runs it. Everything it needs is in the job's folder, and what becomes of the run is written there, as
``state.json``; submitit's own result files say nothing of it.

Synopsis, as submitit calls it::

    keep("hpcdl-jobs/20261124T120000Z-train")
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, Mapping

from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_REQUEUE, BadInput, HpcdlError
from hpcdl.launch.container import describe_image, image_environ, put_stand_in
from hpcdl.launch.machine import read_machine
from hpcdl.launch.mpirun import find_mpirun, read_version
from hpcdl.launch.outcome import Outcome, meaning, render, summary
from hpcdl.launch.placement import place
from hpcdl.launch.ranks import run_ranks
from hpcdl.launch.sites.live import run_text
from hpcdl.launch.stdout import write_to_stdout
from hpcdl.launch.submission.executors import submit
from hpcdl.launch.submission.folders import write_handle
from hpcdl.launch.submission.job import Job, read_job
from hpcdl.launch.submission.srun import run_step
from hpcdl.launch.submission.state import read_state, write_state
from hpcdl.launch.surroundings import describe_environment
from hpcdl.launch.watch import RanksLost, tail

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
        environ = rank_environ(job, os.environ)
        text = describe_environment(read_machine(os.environ), environ, job.layout.gpu_kind)
        (path / "env.txt").write_text(text, encoding="utf-8")
    try:
        outcome = _run(job, image_environ(state["image"]) if state["image"] is not None else {})
    except (OSError, HpcdlError) as problem:
        is_lost = isinstance(problem, RanksLost)
        words = str(problem) if is_lost else _why_not_started(problem, job, state["host"])
        write_state(path, {**state, "state": "failed", "ended": time.time(), "words": words})
        print(f"hpcdl: {words}", flush=True)
        sys.exit(problem.exit_status if isinstance(problem, HpcdlError) else EXIT_FAILED)
    # Whoever ends the keeper itself, as scancel does, wants no other start.
    is_wanted = outcome.stopped_by is None
    may_again = (job.requeue or job.chain) and job.executor != "debug" and restarts < job.most_requeues
    requeue = outcome.status == EXIT_REQUEUE and is_wanted and may_again
    word = _word(outcome, requeue)
    said = {"done": "", "requeued": "", "stopped": _what_is_left(job, restarts)}
    state.update(
        state=word,
        exit_status=outcome.status,
        ended=time.time(),
        words=said[word] if word in said else summary(outcome, state["host"]),
        rank=outcome.rank,
        meaning=meaning(outcome, job.log_dir, tail),
    )
    write_state(path, state)
    if outcome.status not in (EXIT_DONE, EXIT_REQUEUE):
        print(render(outcome, state["host"], job.log_dir, tail), flush=True)
    elif word == "stopped":
        print(f"hpcdl: stopped {said[word]}", flush=True)
    if requeue and job.requeue:
        _requeue(job, path, state)
    elif requeue:
        _follow(job, path, state)
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


def _run(job: Job, further: Mapping[str, str]) -> Outcome:
    if job.is_image_file:
        put_stand_in(job.bin_dir)
    environ = {**rank_environ(job, os.environ), **further}
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


def _why_not_started(problem: Exception, job: Job, host: str) -> str:
    """Says why there are no ranks, in one line."""
    if isinstance(problem, FileNotFoundError) and problem.filename == job.argv[0]:
        return (
            f"{job.argv[0]}, which starts the ranks, is not on PATH on {host}; load it in `setup` of the profile, or"
            " choose another --launcher"
        )
    if isinstance(problem, OSError) and problem.filename == job.cwd:
        return (
            f"{job.cwd}, where the job was submitted, is no folder on {host}: {problem.strerror}; submit it in one that"
            " the nodes see"
        )
    return f"the ranks could not be started on {host}: {problem}"


def _restarts(job: Job, before: Mapping[str, Any], environ: Mapping[str, str]) -> int:
    by_slurm = int(environ.get("SLURM_RESTART_COUNT", "0")) if job.executor == "slurm" else 0
    return max(by_slurm, int(before["restarts"]) + 1 if before.get("state") == "requeued" else 0)


def _word(outcome: Outcome, requeue: bool) -> str:
    if outcome.status == EXIT_DONE:
        return "done"
    if outcome.stopped_by is not None:
        return "cancelled"
    if outcome.status == EXIT_REQUEUE:
        return "requeued" if requeue else "stopped"
    return "failed"


def _what_is_left(job: Job, restarts: int) -> str:
    """Says of a run that has stopped for good what is left of it, and how it goes on."""
    if BenchSettings.from_environ(job.environ).steps is not None:
        return "before its steps were timed, with nothing saved; the same hpcdl bench command begins it again"
    is_enough = restarts >= job.most_requeues
    why = f"{restarts} restarts are enough" if is_enough else "it must not be"
    return f"with a checkpoint, not requeued: {why}; submit it again to go on"


def _requeue(job: Job, folder: Path, state: Mapping[str, Any]) -> None:
    """Asks for another start of this job; Slurm then ends this process."""
    if job.executor == "local":
        sys.exit(_LOCAL_REQUEUE)
    job_id = os.environ["SLURM_JOB_ID"]
    print(f"hpcdl: the run has saved its state; Slurm is asked to requeue job {job_id}", flush=True)
    try:
        run_text(["scontrol", "requeue", job_id])
    except BadInput as problem:
        _stay(folder, state, problem)
        return
    time.sleep(_REQUEUED_WAIT_S)


def _follow(job: Job, folder: Path, state: Mapping[str, Any]) -> None:
    """Submits the job once more, to start when this one is over: where it must not be requeued."""
    job_id = os.environ["SLURM_JOB_ID"]
    after = dataclasses.replace(job.options, dependency=f"afterany:{job_id}")
    try:
        following = submit(dataclasses.replace(job, options=after), os.environ, keep)
    except BadInput as problem:
        _stay(folder, state, problem)
        return
    write_handle(folder, following, job.executor)
    print(f"hpcdl: the run has saved its state; job {following} goes on when this one is over", flush=True)


def _stay(folder: Path, state: Mapping[str, Any], problem: BadInput) -> None:
    """Says why nobody starts the run again."""
    write_state(folder, {**state, "state": "stopped", "words": str(problem)})
    print(f"hpcdl: stopped with a checkpoint; {problem}; submit it again to go on", flush=True)
