"""The command ``hpcdl submit``: from the words that a user types to a job that Slurm has.

What it decides is said on standard error; standard output has the job's id, or with ``--dry-run`` the batch script.

Synopsis::

    sys.exit(submit_main(["--site", "bridges2", "-N", "4", "-A", "abc123p", "--dry-run", "train.py"]))
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Iterator, Mapping, Optional, Sequence

import hpcdl
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.launch.config import read_config
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.submission.accounting import minutes_left
from hpcdl.launch.submission.explain import balance_line, plan_lines
from hpcdl.launch.submission.folders import write_handle
from hpcdl.launch.submission.freeze import Tree, freeze
from hpcdl.launch.submission.job import Job, write_job
from hpcdl.launch.submission.lib import write_lib
from hpcdl.launch.submission.preparing import prepare, warning_of_python, why_refused
from hpcdl.launch.submission.words import parse_submit


def submit_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl submit ARGV``.

    Returns:
        The exit status.

    Raises:
        BadInput: The words are wrong, the site does not allow them, or Slurm refuses the job; nothing is left behind.
    """
    command = parse_submit(argv)
    if not command.place.dry_run:
        refuse_inside_job(os.environ)
    config_folder = config_dir(os.environ)
    config = read_config(config_folder)
    name, how = choose_site(command.place.site, config.site, os.environ, config_folder)
    profile = load_profile(name, config_folder)
    job, tree = prepare(command, profile, config, argv, os.environ)
    for line in plan_lines(job, profile, how):
        print(line, file=sys.stderr)
    warning = warning_of_python(job, config)
    if warning is not None:
        print(warning, file=sys.stderr)
    from hpcdl.launch.submission import executors  # submitit takes a while to load

    if command.place.dry_run:
        problem = why_refused(job, command, config)
        if problem is not None:
            print(f"here it would be refused: {problem}", file=sys.stderr)
        run = shlex.join(job.argv)
        if job.executor == "slurm":
            print("keeper runs  " + run, file=sys.stderr)
            print(executors.batch_script(job), end="")
        else:
            print(run)
        return EXIT_DONE
    if job.executor == "slurm" and job.account:
        warning = balance_line(job.layout, job.account, minutes_left(job.account))
        if warning is not None:
            print(warning, file=sys.stderr)
    if command.place.when and job.executor != "slurm":
        raise BadInput(f"--when asks Slurm; received --site {job.site}, which has none; leave it out")
    if command.place.when:
        print(executors.ask_when(job, os.environ))
        return EXIT_DONE
    job_id = hand_over(job, tree, os.environ)
    if job.executor == "debug":
        return EXIT_DONE
    print(job_id)
    print(
        f"hpcdl logs -f {job_id}    what rank 0 writes; hpcdl jobs {job_id}, hpcdl cancel {job_id}",
        file=sys.stderr,
    )
    return EXIT_DONE


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


def refuse_inside_job(environ: Mapping[str, str]) -> None:
    """Refuses to submit a job from inside another.

    Raises:
        BadInput: This shell is in a job, or remembers one.
    """
    if "SLURM_JOB_ID" in environ:
        raise BadInput(
            f"a job must not submit another one; received SLURM_JOB_ID={environ['SLURM_JOB_ID']}; run `hpcdl train`"
            " here, or, if that job is over and this shell only remembers it, `env -u SLURM_JOB_ID hpcdl submit ...`"
        )


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
