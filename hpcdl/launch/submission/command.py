"""The command ``hpcdl submit``: from the words that a user types to a job that Slurm has.

What it decides is said on standard error; standard output has the job's id, or with ``--dry-run`` the batch script.

Synopsis::

    sys.exit(submit_main(["--site", "bridges2", "-N", "4", "--dry-run", "train.py"]))
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
import time
import types
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.cache import cache_folder
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.words import TrainCommand
from hpcdl.launch.config import Config, read_config
from hpcdl.launch.container import find_image
from hpcdl.launch.git import source_of
from hpcdl.launch.machine import read_machine
from hpcdl.launch.placement import place
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.explain import plan_lines
from hpcdl.launch.submission.folders import default_parent, write_handle
from hpcdl.launch.submission.freeze import Tree, find_tree, freeze, git_record
from hpcdl.launch.submission.job import (
    Inside,
    Job,
    default_name,
    make_job,
    run_folders,
    typed_cwd,
    write_job,
    write_lib,
)
from hpcdl.launch.submission.layout import lay_out
from hpcdl.launch.submission.words import JobOptions, SubmitCommand, parse_submit


def submit_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl submit ARGV``.

    Returns:
        The exit status.

    Raises:
        BadInput: The words are wrong, the site does not allow them, or Slurm refuses the job; nothing is left behind.
    """
    command = parse_submit(argv)
    refuse_inside_job(os.environ)
    config_folder = config_dir(os.environ)
    config = read_config(config_folder)
    name, how = choose_site(command.place.site, config.site, os.environ, config_folder)
    profile = load_profile(name, config_folder)
    job, tree = prepare(command, profile, config, argv, os.environ)
    for line in plan_lines(job, profile, how):
        print(line, file=sys.stderr)
    from hpcdl.launch.submission import executors  # submitit takes a while to load

    if command.place.dry_run:
        run = " ".join(shlex.quote(word) for word in job.argv)
        if job.executor == "slurm":
            print("keeper runs  " + run, file=sys.stderr)
            print(executors.batch_script(job), end="")
        else:
            print(run)
        return EXIT_DONE
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
        BadInput: Slurm refuses it; nothing is left behind.
    """
    from hpcdl.launch.submission import executors  # submitit takes a while to load

    folder = Path(job.folder)
    _write(job, tree)
    try:
        job_id = executors.submit(job, environ)
    except BadInput:
        _forget(folder)
        raise
    if job.executor != "debug":
        write_handle(folder, job_id, job.executor)
    return job_id


def prepare(
    command: SubmitCommand,
    profile: Profile,
    config: Config,
    argv: Sequence[str],
    environ: Mapping[str, str],
    program: Optional[Callable[[Path], Sequence[str]]] = None,
    further: Mapping[str, str] = types.MappingProxyType({}),
) -> Tuple[Job, Optional[Tree]]:
    """Decides everything about a job; nothing is written.

    Args:
        command: The words.
        profile: The site.
        config: The user's defaults.
        argv: The words as they were typed, for the record.
        environ: Variables of this shell.
        program: Gives, for the job's folder, what each rank runs; None: what is trained.
        further: Variables that the ranks get besides.

    Returns:
        The job, and the code to freeze (None: a ready workload).

    Raises:
        BadInput: As `submit_main`.
    """
    where, options = command.place, _with_defaults(command, config)
    is_rehearsal = where.dry_run or where.when
    executor = _executor(command, profile)
    layout = lay_out(profile, options, command.train.settings, where.launcher, config.partition)
    if layout.launcher == "here":
        machine = read_machine(environ)
        place(machine, layout.processes_per_node, layout.replicas_per_process, options.oversubscribe)
    account = options.account or config.account
    if profile.site.account_required and account is None and executor == "slurm":
        form = f", which ends with {profile.site.account_suffix}" if profile.site.account_suffix else ""
        raise BadInput(
            f"a job at {profile.site.title} must name an account; received none; pass --account{form}, or write"
            f" account = 'NAME' to {config_dir(environ) / 'config.toml'}"
        )
    image = find_image(profile.site.container, where.image or config.image, must_exist=not where.dry_run)
    cwd = typed_cwd(environ)
    parent = default_parent(where.jobs_dir or config.jobs_dir)
    folder = _new_folder(parent, options.job_name, command.train.target)
    tree = _tree(command, cwd)
    train = _frozen(command.train, tree, folder, cwd)
    import_path = _frozen_counterpart(Path(cwd), tree, folder) if tree is not None else None
    data = (command.train.options.data_dir, environ.get("HPCDL_DATA"), str(cache_folder(environ)))
    inside = Inside(
        image=image,
        python=ranks_python(command.place.python, profile, image),
        folders=tuple(
            run_folders(
                folder,
                cwd,
                str(tree.root) if tree is not None else None,
                command.train.settings.run_dir,
                [name for name in data if name],
            )
        ),
        import_path=import_path,
    )
    source = source_of(Path(hpcdl.__file__).resolve().parent)
    job = make_job(
        train,
        options,
        profile,
        layout,
        inside,
        folder=folder,
        cwd=cwd,
        executor=executor,
        account=account,
        record={
            "command": ["hpcdl", "submit", *argv],
            "hpcdl": hpcdl.__version__,
            "source": dataclasses.asdict(source) if source is not None else None,
            "target": command.train.target,
            "image": image,
            "git": git_record(tree) if tree is not None else {},
            "submitted": time.time(),
        },
        program=program(folder) if program is not None else None,
        further={**(source.to_environ() if source is not None else {}), **further},
    )
    if not is_rehearsal and not os.access(_first_existing(folder), os.W_OK):
        raise BadInput(f"the job's folder must be writable; received {folder}; pass --jobs-dir")
    if layout.launcher == "here" and "CUDA_VISIBLE_DEVICES" in environ:
        given = {"CUDA_VISIBLE_DEVICES": environ["CUDA_VISIBLE_DEVICES"]}
        job = dataclasses.replace(job, environ={**job.environ, **given})
    return job, tree


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


def _with_defaults(command: SubmitCommand, config: Config) -> JobOptions:
    mail_user = command.job.mail_user or config.mail_user
    return dataclasses.replace(command.job, mail_user=mail_user)


def _executor(command: SubmitCommand, profile: Profile) -> str:
    has_slurm = profile.site.scheduler == "slurm"
    executor = command.place.executor or ("slurm" if has_slurm else "local")
    if (executor == "slurm") != has_slurm:
        needs = "a site with Slurm" if executor == "slurm" else "--site local"
        raise BadInput(
            f"--executor {executor} needs {needs}; received --site {profile.name}; leave one of them out"
        )
    return executor


def ranks_python(asked: Optional[str], profile: Profile, image: Optional[str]) -> Tuple[str, ...]:
    """Gives the Python of the ranks: inside an image its own; without one what `setup` loads, or else ours."""
    if asked is not None:
        return tuple(shlex.split(asked))
    if image is not None:
        return (profile.site.container.python or "python3",)
    return ("python3",) if profile.site.setup else (sys.executable,)


def _tree(command: SubmitCommand, cwd: str) -> Optional[Tree]:
    kind, target = command.train.target_kind, command.train.target
    code = Path(command.place.code) if command.place.code is not None else None
    if kind == "workload":
        return None
    if kind == "function":
        return find_tree(Path(cwd), code)
    if not os.path.isfile(target):
        raise BadInput(f"TARGET must be a script that exists; received {target}; check the path")
    return find_tree(Path(target), code)


def _frozen(train: TrainCommand, tree: Optional[Tree], folder: Path, cwd: str) -> TrainCommand:
    if tree is None or train.target_kind != "script":
        return train
    script = Path(train.target).resolve().relative_to(tree.root)
    return dataclasses.replace(train, target=str(folder / "code" / script))


def _frozen_counterpart(cwd: Path, tree: Tree, folder: Path) -> str:
    """Finds the frozen folder that stands for the working folder, which a script may import from."""
    try:
        return str(folder / "code" / cwd.resolve().relative_to(tree.root))
    except ValueError:  # the user stands outside of the code
        return str(folder / "code")


def _new_folder(parent: Path, job_name: Optional[str], target: str) -> Path:
    name = default_name(job_name or target)
    base = parent / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _first_existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.exists())


def _write(job: Job, tree: Optional[Tree]) -> None:
    folder = Path(job.folder)
    folder.mkdir(parents=True)
    write_lib(Path(hpcdl.__file__).resolve().parent, folder / "lib")
    job.log_dir.mkdir()
    if tree is not None:
        freeze(tree, folder / "code")
        if tree.git.get("diff"):
            (folder / "code.diff").write_text(tree.git["diff"], encoding="utf-8", errors="surrogateescape")
    write_job(job)


def _forget(folder: Path) -> None:
    """Bad input leaves nothing behind."""
    shutil.rmtree(str(folder), ignore_errors=True)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
