"""The words of ``hpcdl submit``: those of ``hpcdl train``, sbatch's own, and where the run goes.

Synopsis::

    command = parse_submit(["--site", "bridges2", "-N", "4", "-t", "8:00:00", "fashion_mnist/cnn_dropout"])
    command.job.nodes, command.job.time                         # 4, "8:00:00"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.options import at_least, folder, many, name_out_of, option, switch, take
from hpcdl.common.words import LaunchOptions, RunSettings, TrainCommand, parse_target, train_parser
from hpcdl.launch.amounts import minutes_of

LAUNCHERS = ("auto", "gloo", "mpi", "mpirun")
EXECUTORS = ("slurm", "local", "debug")

#: Options of sbatch that hpcdl sets itself: what to say instead of ``--sbatch-arg``.
OWNED: Mapping[str, str] = {
    **{name: f"--{name}" for name in ("account", "partition", "qos", "time", "nodes", "constraint", "mem")},
    **{name: f"--{name}" for name in ("gpus-per-node", "cpus-per-task", "exclusive", "reservation")},
    **{name: f"--{name}" for name in ("dependency", "job-name", "mail-user", "mail-type")},
    "gres": "--gpus-per-node",
    "gpus": "--gpus-per-node",
    "gpus-per-task": "--gpus-per-node",
    "gpus-per-socket": "--gpus-per-node",
    "cpus-per-gpu": "--cpus-per-task",
    "mem-per-cpu": "--mem",
    "mem-per-gpu": "--mem",
    **{
        name: "--np"
        for name in (
            "ntasks",
            "tasks-per-node",
            *(f"ntasks-per-{what}" for what in ("node", "gpu", "core", "socket")),
        )
    },
    "requeue": "nothing: jobs are requeued unless --no-requeue stands",
    "no-requeue": "--no-requeue",
    "output": "hpcdl logs",
    "error": "hpcdl logs",
    **{name: "nothing: it is hpcdl's" for name in ("open-mode", "signal", "array", "wrap", "chdir", "wckey")},
    **{name: "nothing: it is hpcdl's" for name in ("export", "export-file", "parsable", "wait", "input")},
    "distribution": "nothing: it is hpcdl's",
    "test-only": "--when",
}


#: What to say where one of them, or of mpirun's, stands among hpcdl's options.
INSTEAD: Mapping[str, str] = {"-np": "--np, or -n", **{f"--{name}": use for name, use in OWNED.items()}}


def one_line(what: str, text: str) -> str:
    """Reads a line of text that says something."""
    if not text or "\n" in text:
        raise BadInput(f"{what} must be one line of text; received {text!r}; pass e.g. {what}=name")
    return text


def _time(what: str, text: str) -> str:
    minutes_of(text, what)
    return text


def _sbatch_arg(what: str, text: str) -> str:
    match = re.fullmatch(r"--([a-z][a-z-]*)(=[^\n]*)?", text)
    if match is None:
        raise BadInput(
            f"{what} must be one long option of sbatch; received {text!r}; pass e.g. {what}=--licenses=scratch"
        )
    # sbatch takes every beginning of an option that no other has.
    owned = next((name for name in OWNED if name.startswith(match.group(1))), None)
    if owned is not None:
        raise BadInput(f"{what} must not set what hpcdl sets; received {text!r}; use {OWNED[owned]}")
    return text


@dataclass(frozen=True)
class JobOptions:
    """sbatch's own words."""

    instead = INSTEAD

    account: Optional[str] = option(
        None, "NAME", "charge the job to NAME (default: of config.toml)", one_line, "-A"
    )
    partition: Optional[str] = option(
        None, "NAME", "wait in partition NAME (default: the site's)", one_line, "-p"
    )
    qos: Optional[str] = option(None, "NAME", "ask for quality of service NAME", one_line, "-q")
    time: Optional[str] = option(
        None,
        "LIMIT",
        "run for at most LIMIT: 30 (minutes), 8:00:00, 1-12:00:00 (default: the site's)",
        _time,
        "-t",
    )
    nodes: int = option(1, "N", "take N nodes (default: 1)", at_least(1), "-N")
    np: Optional[int] = option(
        None, "N", "start N processes in all (default: the strategy and the GPUs decide)", at_least(1), "-n"
    )
    gpus_per_node: Optional[str] = option(
        None, "[TYPE:]N", "take N GPUs on each node (default: all of them)", one_line
    )
    cpus_per_task: Optional[int] = option(
        None, "N", "give each process N cores (default: its share of the node)", at_least(1), "-c"
    )
    mem: Optional[str] = option(None, "SIZE", "take SIZE of memory on each node, e.g. 120G; 0: all", one_line)
    constraint: Optional[str] = option(None, "LIST", "take nodes with these features", one_line, "-C")
    job_name: Optional[str] = option(
        None, "NAME", "call the job NAME (default: after TARGET)", one_line, "-J"
    )
    exclusive: bool = switch("take whole nodes")
    reservation: Optional[str] = option(None, "NAME", "use reservation NAME", one_line)
    dependency: Optional[str] = option(
        None, "LIST", "start after other jobs, e.g. afterok:123", one_line, "-d"
    )
    mail_user: Optional[str] = option(
        None, "ADDRESS", "send mail to ADDRESS (default: of config.toml)", one_line
    )
    mail_type: Optional[str] = option(None, "LIST", "send mail at these events (default: END,FAIL)", one_line)
    oversubscribe: bool = switch("allow more replicas than cores, where this machine runs the job")
    no_requeue: bool = switch("do not start the job again where it was stopped")
    max_requeues: int = option(10, "N", "start the job again at most N times (default: 10)", at_least(0))
    sbatch_arg: Tuple[str, ...] = many(
        "--NAME=VALUE", "pass this option on to sbatch; may be repeated", _sbatch_arg
    )


class JobRunSettings(RunSettings):
    """What the runs of jobs are told."""

    refused = {
        "controller": (
            "how the ranks of a job meet follows from how they are started",
            "pass --launcher mpi or gloo",
        )
    }


@dataclass(frozen=True)
class PlaceOptions:
    """Where the run goes, and inside what."""

    site: Optional[str] = option(
        None, "NAME", "submit at site NAME (default: of config.toml, else the host name tells)", one_line
    )
    image: Optional[str] = option(
        None, "FILE", "run inside this image; none: without one (default: the site's newest)", one_line
    )
    python: Optional[str] = option(
        None,
        "COMMAND",
        "run ranks with this Python (default: in an image the profile's, or python3; without one python3 where the"
        " profile has setup, else the Python that runs hpcdl)",
        one_line,
    )
    launcher: str = option(
        "auto",
        "NAME",
        "start ranks by srun, meeting through gloo or mpi, or by mpirun (default: auto)",
        name_out_of(LAUNCHERS),
    )
    executor: Optional[str] = option(
        None,
        "NAME",
        "hand the job to slurm, local (in the background here) or debug (here and now)"
        " (default: what the site has)",
        name_out_of(EXECUTORS),
    )
    jobs_dir: Optional[str] = option(
        None, "DIR", "make the job's folder in DIR, which the nodes must see (default: hpcdl-jobs)", folder
    )
    code: Optional[str] = option(
        None, "DIR", "freeze the code in DIR (default: the git repository or folder of the script)", folder
    )
    dry_run: bool = switch("print the batch script; write nothing, submit nothing")
    when: bool = switch("ask Slurm when the job would start; submit nothing")


@dataclass(frozen=True)
class SubmitCommand:
    """A parsed command line of ``hpcdl submit``."""

    train: TrainCommand
    job: JobOptions
    place: PlaceOptions


def parse_submit(argv: Sequence[str], prog: str = "hpcdl submit") -> SubmitCommand:
    """Parses what stands after ``hpcdl submit``, by the rules of `parse_train`.

    Raises:
        BadInput: An option is unknown, malformed or misplaced, or TARGET is missing or has no known form.
    """
    groups = {"the job (sbatch's own words)": JobOptions, "where it runs": PlaceOptions}
    parser = train_parser(prog, _DESCRIPTION, _EPILOG, groups, JobRunSettings)
    train, values = parse_target(parser, argv, prog)
    # np and launcher have other meanings here than on one machine: the ranks get none of them.
    train = TrainCommand(train.settings, LaunchOptions(), train.options, train.target, train.script_args)
    return SubmitCommand(train, take(JobOptions, values), take(PlaceOptions, values))


_DESCRIPTION = """\
Submit TARGET as a Slurm job: on any number of nodes, inside the site's image or environment.

TARGET and the options of the run are those of `hpcdl train`. hpcdl's options stand before TARGET."""

_EPILOG = """\
examples:
  hpcdl submit --site bridges2 -N 4 -t 8:00:00 -A abc123p fashion_mnist/cnn_dropout --epochs 12
  hpcdl submit --site bridges2 -N 2 -t 30 -A abc123p --dry-run train.py --my-flag
  hpcdl submit --site local --np 2 fashion_mnist/fc64 --epochs 1
  hpcdl submit --site generic_slurm --image none -N 2 -t 30 --gpus-per-node 4 -c 8 --mem 0 train.py"""
