"""Hands a job that is worked out over: its folder is written, with the frozen code and the ranks' half of hpcdl.

Synopsis::

    job_id = hand_over(job, tree, os.environ)       # Slurm's
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Iterator, Mapping, Optional

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.launch.submission.folders import write_handle
from hpcdl.launch.submission.freeze import Tree, freeze
from hpcdl.launch.submission.job import Job, write_job
from hpcdl.launch.submission.lib import write_lib


def hand_over(job: Job, tree: Optional[Tree], environ: Mapping[str, str]) -> str:
    """Makes the folder of a job and submits the job.

    Returns:
        Its id.

    Raises:
        BadInput: It cannot be written, or Slurm refuses it; nothing is left behind.
    """
    from hpcdl.launch.submission import executors, keeper  # submitit takes a while to load

    folder = Path(job.folder)
    with _nothing_left_of(folder):
        _write(job, tree)
        if job.executor != "debug":
            job_id = executors.submit(job, environ, keeper.keep)
    if job.executor == "debug":  # which runs the job at once, and what a run leaves is kept
        return executors.submit(job, environ, keeper.keep)
    write_handle(folder, job_id, job.executor)
    return job_id


def _write(job: Job, tree: Optional[Tree]) -> None:
    folder = Path(job.folder)
    write_lib(Path(hpcdl.__file__).resolve().parent, folder / "lib")
    job.log_dir.mkdir()
    if tree is not None:
        freeze(tree, folder / "code")
        if tree.git.get("diff"):
            (folder / "code.diff").write_text(tree.git["diff"], encoding="utf-8", errors="surrogateescape")
    write_job(job)
    if job.executor == "slurm":
        from hpcdl.launch.submission import executors  # submitit takes a while to load

        (folder / "job.sbatch").write_text(executors.batch_script(job), encoding="utf-8")


@contextlib.contextmanager
def _nothing_left_of(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again where what is done in it fails."""
    try:
        folder.mkdir(parents=True)
        try:
            yield
        except BaseException:
            shutil.rmtree(str(folder), ignore_errors=True)
            with contextlib.suppress(OSError):  # other jobs are there
                folder.parent.rmdir()
            raise
    except OSError as problem:
        raise BadInput(
            f"a job needs a folder that can be written, and code that can be read; received {folder}: {problem}; pass"
            " another --jobs-dir, or name the code with --code"
        ) from problem
