"""The frozen description of a job: all that its keeper needs, as a file in the job's own folder.

Synopsis::

    job = make_job(train, options, profile, layout, equipment, folder=Path("hpcdl-jobs/x"), ...)
    write_job(job)                              # hpcdl-jobs/x/job.json
    read_job(Path("hpcdl-jobs/x")) == job       # True
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.cache import cache_folder
from hpcdl.common.errors import BadInput
from hpcdl.common.files import nearest_existing
from hpcdl.common.records import read_json, write_json
from hpcdl.common.words import TrainCommand, train_argv
from hpcdl.launch.container import BY_FILE, enter_argv
from hpcdl.launch.sites.profile import Profile, Site
from hpcdl.launch.submission.argv import mpirun_argv, srun_argv
from hpcdl.launch.submission.layout import Layout
from hpcdl.launch.submission.words import JobOptions

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Job:
    """A job as it was submitted.

    Attributes:
        name: Its name in Slurm.
        folder: Its folder, which all nodes see.
        cwd: Where the user stood; relative paths of a script are from there.
        site: Name of the profile.
        executor: ``slurm``, ``local`` or ``debug``.
        layout: Where the processes run.
        options: What the user asked of sbatch.
        account: The account.
        gpu_request: How GPUs are asked for.
        setup: Shell lines before the run.
        sbatch_args: Further options of sbatch, of the site and the user.
        argv: What the keeper starts: srun or mpirun with all that follows, or the command of one rank.
        environ: Variables for it.
        import_path: Goes before the PYTHONPATH that ``setup`` has made; None: an image has its own.
        requeue: Whether it may be requeued.
        chain: Whether another job may follow it instead, where it must not be requeued.
        is_image_file: Whether the ranks run in an image that is a file.
        record: What else is worth keeping: the command line, the image, git.
    """

    name: str
    folder: str
    cwd: str
    site: str
    executor: str
    layout: Layout
    options: JobOptions
    account: Optional[str]
    gpu_request: str
    setup: Tuple[str, ...]
    sbatch_args: Tuple[str, ...]
    argv: Tuple[str, ...]
    environ: Mapping[str, str]
    import_path: Optional[str]
    requeue: bool
    is_image_file: bool = False
    chain: bool = False
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def most_requeues(self) -> int:
        """How often it may be started again; submitit starts a job that has no scheduler six times at most."""
        most = self.options.max_requeues
        return min(most, 5) if self.executor == "local" else most

    @property
    def bin_dir(self) -> Path:
        """Programs that stand in for those of the host."""
        return Path(self.folder) / "bin"

    @property
    def log_dir(self) -> Path:
        """Where the ranks' logs and reports are."""
        return Path(self.folder) / "logs"


@dataclass(frozen=True)
class Equipment:
    """What the ranks run with: the image, its Python, and the folders that they see.

    Attributes:
        image: The image; None: the environment that ``setup`` makes.
        python: The words that start Python there.
        folders: What the run reads and writes.
        import_path: Frozen folder that modules are imported from; None: there is no code of the user's.
    """

    image: Optional[str]
    python: Tuple[str, ...]
    folders: Tuple[str, ...]
    import_path: Optional[str]


def make_job(
    train: TrainCommand,
    options: JobOptions,
    profile: Profile,
    layout: Layout,
    equipment: Equipment,
    *,
    folder: Path,
    cwd: str,
    executor: str,
    account: Optional[str],
    record: Mapping[str, Any],
    program: Optional[Sequence[str]] = None,
    further: Mapping[str, str] = types.MappingProxyType({}),
) -> Job:
    """Builds the description of a job; nothing is written.

    Args:
        train: What is trained, with the frozen TARGET.
        options: sbatch's words.
        profile: The site.
        layout: Where the processes run.
        equipment: What they run with.
        folder: The job's folder.
        cwd: Where the user stands.
        executor: Who gets the job.
        account: The account that pays.
        record: What else to keep.
        program: Module and words that each rank runs; None: what is trained.
        further: Variables that the ranks get besides.

    Raises:
        BadInput: A path or name cannot be said to Slurm or to the container.
    """
    site = profile.site
    if re.search(r"[\n%]", str(folder)):
        raise BadInput(
            f"the job's folder must have no newline and no % in its name, which Slurm reads as its own; received"
            f" {str(folder)!r}; pass --jobs-dir"
        )
    lib = str(folder / "lib")
    rank = [*equipment.python, lib, *(program or ("hpcdl.runtime", *train_argv(train)))]
    shared = {
        "HPCDL_STATUS_DIR": str(folder / "logs"),
        "HPCDL_RENDEZVOUS_DIR": str(folder / "logs" / "rendezvous"),
    }
    environ = {**layout.environ, **shared, **train.settings.to_environ(), **further}
    if layout.launcher == "here":
        argv = rank
    else:
        start = [
            *equipment.python,
            lib,
            "hpcdl.common.rank_start",
            "--log-dir",
            str(folder / "logs"),
            "--",
            *rank,
        ]
        if equipment.image is not None:
            names = {**environ, "PYTHONPATH": equipment.import_path or ""}
            start = [
                *enter_argv(
                    site.container,
                    equipment.image,
                    folders=equipment.folders,
                    cwd=cwd,
                    with_gpus=layout.gpus_per_node > 0,
                ),
                *rank_names(names),
                *start,
            ]
        by_mpirun = layout.launcher == "mpirun"
        argv = mpirun_argv(layout, start) if by_mpirun else srun_argv(layout, start)
    return Job(
        name=options.job_name or default_name(train.target),
        folder=str(folder),
        cwd=cwd,
        site=profile.name,
        executor=executor,
        layout=layout,
        options=options,
        account=account,
        gpu_request=site.gpu_request or "gpus-per-node",
        setup=(*site.setup, *scratch_lines(site, equipment.image is not None)),
        sbatch_args=(*site.sbatch_args, *options.sbatch_arg),
        argv=tuple(argv),
        environ=environ,
        import_path=equipment.import_path if equipment.image is None else None,
        requeue=site.requeue is not False and not options.no_requeue,
        chain=site.requeue is False
        and site.has_chains(layout.queue_name) is not False
        and not options.no_requeue,
        is_image_file=equipment.image is not None and site.container.kind in BY_FILE,
        record=record,
    )


def scratch_lines(site: Site, has_image: bool) -> List[str]:
    """Builds the shell lines that tell the ranks the node's own scratch folder, if there is one, as HPCDL_SCRATCH."""
    if site.scratch is None:
        return []
    lines = [f'export HPCDL_SCRATCH="{site.scratch}"', '[ -d "$HPCDL_SCRATCH" ] || unset HPCDL_SCRATCH']
    if has_image and site.container.kind in BY_FILE and site.scratch != "/tmp":  # which every image sees
        name = f"{site.container.kind.upper()}_BIND"
        lines.append(f'[ -z "$HPCDL_SCRATCH" ] || export {name}="${{{name}:+${name},}}$HPCDL_SCRATCH"')
    return lines


def rank_names(names: Mapping[str, str]) -> List[str]:
    """Builds the words that set variables inside an image; of the host's Python nothing may reach the one there."""
    return ["env", "-u", "PYTHONHOME", *(f"{name}={value}" for name, value in sorted(names.items()))]


def default_name(target: str) -> str:
    """Names a job after its TARGET."""
    last = re.split(r"[/:]", target)[-1]
    stem = last[: -len(".py")] if last.endswith(".py") else last
    return re.sub(r"[^\w.-]+", "-", stem).strip("-") or "hpcdl"


def default_parent(jobs_dir: Optional[str]) -> Path:
    """Gives the folder of job folders: the user's own, else hpcdl-jobs where they stand."""
    return Path(os.path.abspath(os.path.expanduser(jobs_dir or "hpcdl-jobs")))


def write_job(job: Job) -> None:
    """Writes the description into the job's folder."""
    tree = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(job)}
    write_json(Path(job.folder) / "job.json", tree)


def read_job(folder: Path) -> Job:
    """Reads what `write_job` wrote.

    Raises:
        BadInput: The folder is not a job's, is damaged, or of a newer hpcdl.
    """
    path = folder / "job.json"
    try:
        tree: Dict[str, Any] = read_json(path)
    except OSError as problem:
        raise BadInput(
            f"the folder of a job has a job.json; received {folder}, where it cannot be read"
            f" ({problem.strerror or problem}); see `hpcdl jobs`"
        ) from problem
    except ValueError as problem:
        raise BadInput(f"{path} is damaged: {problem}; submit the job again") from problem
    version = tree.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise BadInput(f"{path} must have schema version {SCHEMA_VERSION}; received {version}; update hpcdl")
    try:
        tree["layout"] = Layout(**_tuples(tree["layout"]))
        tree["options"] = JobOptions(**_tuples(tree["options"]))
        return Job(**_tuples(tree))
    except (KeyError, TypeError, AttributeError) as problem:
        raise BadInput(
            f"{path} is damaged: {type(problem).__name__}: {problem}; submit the job again"
        ) from problem


def _tuples(tree: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}


def typed_cwd(environ: Mapping[str, str]) -> str:
    """Gives the working folder under the name that the user knows it by, links included."""
    real = os.getcwd()
    typed = environ.get("PWD", real)
    return typed if os.path.isabs(typed) and os.path.realpath(typed) == os.path.realpath(real) else real


def data_folders(data_dir: Optional[str], environ: Mapping[str, str]) -> List[str]:
    """Lists the folders where a run looks for its data, whether they are there or not."""
    named = (data_dir, environ.get("HPCDL_DATA"), str(cache_folder(environ)))
    return [folder for folder in named if folder]


def run_folders(
    job_folder: Path, cwd: str, code_root: Optional[str], run_dir: Optional[str], data: Sequence[str] = ()
) -> List[str]:
    """Lists the folders that an image must see, each as it is named and as it really is; of data, what is there."""
    names = [str(job_folder), cwd, *([code_root] if code_root else [])]
    if run_dir is not None:
        # A folder that is yet to be made is made from inside: what it will stand in is seen there.
        above = Path(os.path.abspath(run_dir)).parent
        nearest = nearest_existing(above)
        names.append(str(above if nearest == Path("/") else nearest))
    names += [os.path.abspath(folder) for folder in data if os.path.isdir(folder)]
    return list(dict.fromkeys(one for name in names for one in (name, os.path.realpath(name))))
