"""The edge to submitit: what it is told, the batch script that it writes, and handing a job over.

Only submitit's own file is unpickled, on the host: a function by reference and the name of the job's folder.

Synopsis::

    print(batch_script(job))                # what `submit` would hand to sbatch
    job_id = submit(job, os.environ, keep)
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping

from submitit.core.utils import FailedJobError
from submitit.local.debug import DebugExecutor
from submitit.local.local import LocalExecutor
from submitit.slurm.slurm import SlurmExecutor

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.launch.container import LIBRARIES_FOR_IMAGES
from hpcdl.launch.submission.job import Job

#: What a shell inside a job, or a tmux started there, has and a new job must not inherit: with another job's
#: SLURM_CPU_BIND all ranks share a core, without a word. And the libraries of the host are not for an image; what the
#: `setup` of a profile hands on is set in the job.
_INHERITED = re.compile(
    "|".join([r"(SLURM|SRUN|SBATCH|SALLOC|PMIX?|OMPI|PRTE|HYDRA)_\w+", *LIBRARIES_FOR_IMAGES])
)
#: On some clusters the only way to Slurm's configuration, or into Slurm; and a user's own leave to use mpirun as root.
_KEPT = ("SLURM_CONF", "SLURM_JWT", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
#: Slurm gets this long to say when a job would start.
_ANSWERS_S = 120


def parameters(job: Job) -> Dict[str, Any]:
    """Translates a job for submitit's `SlurmExecutor.update_parameters`."""
    layout, options = job.layout, job.options
    wanted: Dict[str, Any] = {
        "job_name": job.name,
        "account": job.account,
        "partition": layout.partition,
        "qos": layout.qos,
        "constraint": layout.constraint,
        "time": layout.time_limit_min,  # a number of minutes: submitit computes with it
        "nodes": layout.num_nodes,
        "ntasks_per_node": layout.processes_per_node,
        "cpus_per_task": layout.cores_per_process,
        "mem": "0" if layout.memory_mb is None else f"{layout.memory_mb}M",
        "exclusive": True if layout.whole_nodes else None,
        "dependency": options.dependency,
        "mail_user": options.mail_user,
        "mail_type": options.mail_type or ("END,FAIL" if options.mail_user else None),
        "signal_delay_s": layout.stop_margin_s,
        "stderr_to_stdout": True,
        "use_srun": False,  # the keeper is one process, outside of any image, and starts srun itself
        "setup": [*job.setup, *end_time_lines(layout.time_limit_min)],
        **_gpu_parameters(job),
    }
    further: Dict[str, Any] = {"requeue" if job.requeue else "no-requeue": True}
    if job.is_image_file:
        # Slurm's warning reaches every process of the step, also the one behind an ordinary user's image, which dies
        # of it: one that nobody dies of, then. The ranks stop by the clock.
        further["signal"] = f"URG@{layout.stop_margin_s}"
    if options.reservation is not None:
        further["reservation"] = options.reservation
    for argument in job.sbatch_args:
        name, has_value, value = argument[2:].partition("=")
        further[name] = value if has_value else True
    # submitit's own wckey is refused by clusters that know no keys: None takes it out.
    present = {name: value for name, value in wanted.items() if value is not None}
    return {**present, "wckey": None, "additional_parameters": further}


def end_time_lines(time_limit_min: int) -> List[str]:
    """Builds the shell lines that tell the ranks when the job ends, in seconds since 1970.

    Slurm says it by itself from 23.02 on; before, squeue does; else it is start plus limit, by the clock.
    """
    return [
        'end=$(squeue -h -j "$SLURM_JOB_ID" -o %e) && end=$(date -d "${end:-none}" +%s)'
        f" || end=$(($(date +%s) + {60 * time_limit_min}))",
        "export HPCDL_END_TIME=${SLURM_JOB_END_TIME:-$end}",
    ]


def batch_script(job: Job) -> str:
    """Gives the text of the file that submitit writes for sbatch."""
    executor = _slurm_executor(job, {})
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text


def unset_names(environ: Mapping[str, str]) -> List[str]:
    """Lists the variables that sbatch must not see."""
    return sorted(name for name in environ if _INHERITED.fullmatch(name) and name not in _KEPT)


def submit(job: Job, environ: Mapping[str, str], keep: Callable[[str], None]) -> str:
    """Hands a job over; its folder has been written.

    Args:
        job: The job.
        environ: Variables of this shell.
        keep: Runs a job to its end, given its folder.

    Returns:
        The job's id: Slurm's, or the number of the process that looks after it here.

    Raises:
        BadInput: Slurm refuses the job, or is not there.
    """
    if job.executor == "slurm":
        return _submit_to_slurm(keep, job, environ)
    if job.executor == "local":
        executor = LocalExecutor(job.folder, python=shlex.quote(sys.executable))
        executor.update_parameters(
            timeout_min=job.layout.time_limit_min,
            signal_delay_s=job.layout.stop_margin_s,
            stderr_to_stdout=True,
        )
        with _output_to(Path(job.folder) / "controller.log"):
            return str(executor.submit(keep, job.folder).job_id)
    debug = DebugExecutor(job.folder).submit(keep, job.folder)
    debug.result()
    return str(debug.job_id)


def ask_when(job: Job, environ: Mapping[str, str]) -> str:
    """Asks Slurm when a job would start; nothing is submitted.

    Raises:
        BadInput: Slurm refuses the job, or is not there.
        HpcdlError: It does not answer.
    """
    _need_sbatch()
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=batch_script(job).encode(),
            env={name: value for name, value in environ.items() if name not in unset_names(environ)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ANSWERS_S,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise HpcdlError(
            f"no answer from sbatch --test-only within {_ANSWERS_S} s; ask again later"
        ) from problem
    words = _one_line(done.stdout.decode(errors="replace"))
    if done.returncode != 0:
        raise BadInput(f"Slurm would refuse the job: {words}")
    return words


def _submit_to_slurm(keep: Callable[[str], None], job: Job, environ: Mapping[str, str]) -> str:
    _need_sbatch()
    executor = _slurm_executor(job, environ)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return str(executor.submit(keep, job.folder).job_id)
    except FailedJobError as problem:
        raise BadInput(f"Slurm refuses the job: {_one_line(str(problem))}") from problem


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Lets what is started write to a log: it outlives us, and whoever reads our output waits for all writers."""
    sys.stdout.flush()
    sys.stderr.flush()
    ours = [os.dup(number) for number in (0, 1, 2)]
    theirs = [
        os.open(os.devnull, os.O_RDONLY),
        os.open(str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
    ]
    try:
        for number, new in ((0, theirs[0]), (1, theirs[1]), (2, theirs[1])):
            os.dup2(new, number)
        yield
    finally:
        for number, old in enumerate(ours):
            os.dup2(old, number)
        for used in (*ours, *theirs):
            os.close(used)


def _need_sbatch() -> None:
    if shutil.which("sbatch") is None:
        raise BadInput(
            "sbatch is needed to submit to Slurm; found none on this machine; log in to the cluster, or pass"
            " --site local to run here, or --dry-run to see the batch script"
        )


def _slurm_executor(job: Job, environ: Mapping[str, str]) -> Any:
    unset = unset_names(environ)

    class Executor(SlurmExecutor):  # type: ignore[misc, unused-ignore]
        @classmethod
        def affinity(cls) -> int:  # a script can be written where no Slurm is
            return 2

        def _make_submission_command(self, submission_file_path: Path) -> List[str]:
            return [
                "env",
                *(word for name in unset for word in ("-u", name)),
                "sbatch",
                str(submission_file_path),
            ]

    executor = Executor(job.folder, python=shlex.quote(sys.executable))
    executor.update_parameters(**parameters(job))
    return executor


def _gpu_parameters(job: Job) -> Dict[str, Any]:
    number, kind = job.layout.gpus_per_node, job.layout.gpu_type
    typed = f"{kind}:{number}" if kind else str(number)
    if not number or job.gpu_request in ("gpus-per-task", "none"):
        return {}
    return {"gres": f"gpu:{typed}"} if job.gpu_request == "gres" else {"gpus_per_node": typed}


def _one_line(text: str) -> str:
    lines = [re.sub(r"^sbatch: (error: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(line for line in lines if line) or "it gives no reason"
