"""Decides everything about a job, from the words that a user typed, and writes nothing: a dry run ends here.

Synopsis::

    job, tree = prepare(command, profile, config, argv, os.environ)
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
import types
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.common.files import nearest_existing
from hpcdl.common.words import TrainCommand, check_script
from hpcdl.launch.config import Config
from hpcdl.launch.container import describe_choice, find_image
from hpcdl.launch.git import own_source
from hpcdl.launch.mounts import own_of_each_node, read_mounts
from hpcdl.launch.sites.library import config_dir
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.freeze import Tree, find_tree, git_record
from hpcdl.launch.submission.job import (
    Equipment,
    Job,
    data_folders,
    default_name,
    default_parent,
    make_job,
    run_folders,
    typed_cwd,
)
from hpcdl.launch.submission.layout import lay_out
from hpcdl.launch.submission.words import JobOptions, SubmitCommand
from hpcdl.launch.tried_images import read_tried, read_ways


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
    executor = _executor(command, profile)
    tried, asked_image = read_tried(environ), where.image or config.image
    image = find_image(
        profile.site.container,
        where.image,
        must_exist=not where.dry_run,
        default=config.image,
        tried=tried,
    )
    layout = lay_out(
        profile,
        options,
        command.train.settings,
        where.launcher,
        config.partition,
        ways=read_ways(image, environ),
    )
    if layout.launcher == "here":
        # Of no job of a cluster is asked how its ranks would find room here.
        from hpcdl.launch.machine import read_machine
        from hpcdl.launch.placement import place

        machine = read_machine(environ)
        place(machine, layout.processes_per_node, layout.replicas_per_process, options.oversubscribe)
    account = options.account or config.account
    if profile.site.account_required and account is None and executor == "slurm":
        form = f", which ends with {profile.site.account_suffix}" if profile.site.account_suffix else ""
        raise BadInput(
            f"a job at {profile.site.title} must name an account; received none; pass --account{form}, or write"
            f" account = 'NAME' to {config_dir(environ) / 'config.toml'}"
        )
    if options.dependency is not None and profile.site.has_chains(layout.queue_name) is False:
        where_not = f"queue {layout.queue_name} of " if profile.site.job_chains is not False else ""
        raise BadInput(
            f"{where_not}{profile.site.title} allows no jobs that depend on others; received --dependency"
            f" {options.dependency}; leave it out{', or pass another --qos' if where_not else ''}"
        )
    cwd = typed_cwd(environ)
    parent = default_parent(where.jobs_dir or config.jobs_dir)
    folder = _new_folder(parent, options.job_name, command.train.target)
    tree = _tree(command, cwd)
    train = _frozen(command.train, tree, folder)
    import_path = _frozen_counterpart(Path(cwd), tree, folder) if tree is not None else None
    equipment = Equipment(
        image=image,
        python=ranks_python(command.place.python, profile, image),
        folders=tuple(
            run_folders(
                folder,
                cwd,
                str(tree.root) if tree is not None else None,
                command.train.settings.run_dir,
                data_folders(command.train.options.data_dir, environ),
            )
        ),
        import_path=import_path,
    )
    source = own_source()
    job = make_job(
        train,
        options,
        profile,
        layout,
        equipment,
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
            "image_choice": describe_choice(image, asked_image, tried),
            "git": git_record(tree) if tree is not None else {},
            "submitted": time.time(),
        },
        program=program(folder) if program is not None else None,
        further={**(source.to_environ() if source is not None else {}), **further},
    )
    problem = why_refused(job, command, config) if not where.dry_run else None
    if problem is not None:
        raise BadInput(problem)
    if layout.launcher == "here" and "CUDA_VISIBLE_DEVICES" in environ:
        given = {"CUDA_VISIBLE_DEVICES": environ["CUDA_VISIBLE_DEVICES"]}
        job = dataclasses.replace(job, environ={**job.environ, **given})
    return job, tree


def why_refused(job: Job, command: SubmitCommand, config: Config) -> Optional[str]:
    """Says which folder cannot be used, or is another one on each node; None: all can.

    A dry run, which may be for a cluster elsewhere, says it; a submission is refused.
    """
    run_dir = command.train.settings.run_dir
    used = [("the working folder", job.cwd, "stand in another one", os.R_OK)]
    used += [("the job's folder", job.folder, "pass --jobs-dir", os.W_OK)]
    if run_dir is not None:
        used.append(("the run's folder", os.path.abspath(run_dir), "pass another --run-dir", os.W_OK))
    for what, path, cure, mode in used:
        nearest = nearest_existing(Path(path))
        if not os.path.isdir(nearest) or not os.access(nearest, mode):
            return f"{what} must be one that you may use; received {path}, and {nearest} is none; {cure}"
        own = _own_of_each_node(str(nearest), job, config)
        if own is not None:
            return (
                f"{what} must be one that the nodes see; received {path}, and each machine has its own {own}; {cure}"
                " (if the nodes do see it, name it as shared_folder in config.toml)"
            )
    return None


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


def warnings_of_files(job: Job, config: Config) -> List[str]:
    """Warns where the nodes may have no such Python as this one, which looks after a job, or no such image."""
    warnings = []
    own = _own_of_each_node(sys.prefix, job, config)
    if own is not None:
        warnings.append(
            f"warning: {sys.executable} looks after the job, on its first node, and each machine has its own {own};"
            " install hpcdl in a folder that the nodes see"
        )
    image = os.path.abspath(str(job.record["image"]))
    own = _own_of_each_node(image, job, config) if job.is_image_file else None
    if own is not None:
        warnings.append(
            f"warning: the ranks run in {image}, and each machine has its own {own}; unless each has the image there,"
            " put it into a folder that the nodes see"
        )
    return warnings


def _own_of_each_node(path: str, job: Job, config: Config) -> Optional[str]:
    return own_of_each_node(path, read_mounts(), config.shared_folder) if job.executor == "slurm" else None


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
    """Gives the Python of the ranks: inside an image its own; without one what `setup` loads, or else ours.

    Raises:
        BadInput: What is asked for is no command.
    """
    if asked is not None:
        return _words_of(asked)
    if image is not None:
        return (profile.site.container.python or "python3",)
    return ("python3",) if profile.site.setup else (sys.executable,)


def _words_of(asked: str) -> Tuple[str, ...]:
    try:
        words = shlex.split(asked)
    except ValueError:  # a quote that nothing closes
        words = []
    if not words:
        raise BadInput(
            f"--python must be a command, quoted as for a shell; received {asked!r}; pass e.g. /opt/env/bin/python"
        )
    return tuple(words)


def _tree(command: SubmitCommand, cwd: str) -> Optional[Tree]:
    kind, target = command.train.target_kind, command.train.target
    code = Path(command.place.code) if command.place.code is not None else None
    if kind == "workload":
        return None
    if kind == "function":
        return find_tree(Path(cwd), code)
    check_script(target)
    return find_tree(Path(target), code)


def _frozen(train: TrainCommand, tree: Optional[Tree], folder: Path) -> TrainCommand:
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
    while os.path.exists(folder):
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder
