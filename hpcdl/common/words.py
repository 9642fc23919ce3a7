"""The words of ``hpcdl train``: its options, what they mean, and how they travel.

The same words are parsed on the machine that starts the ranks and, inside the image, by every rank.
`RunSettings` travel in the environment as well, so that `hpcdl.init` of a plain script sees them. Flags,
variables and help all come from the fields of the dataclasses below: a further option is a further field.

Synopsis::

    command = parse_train(["--np", "2", "fashion_mnist/cnn_dropout", "--epochs", "2"])
    command.launch.np, command.options.epochs               # 2, 2
    train_argv(command)                                     # the same again, as argv
    RunSettings.from_environ({"HPCDL_SEED": "7"}).seed      # 7
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.checks import parse_number
from hpcdl.common.errors import BadInput
from hpcdl.common.options import (
    OptionParser,
    at_least,
    changed,
    flag,
    folder,
    from_environ,
    name_out_of,
    names_of,
    number_from_0,
    option,
    positive_number,
    switch,
    take,
    to_argv,
    to_environ,
)
from hpcdl.common.schedule import LR_SCALINGS, parse_interval
from hpcdl.common.topology import STRATEGIES
from hpcdl.common.workloads import SYNTHETIC
from hpcdl.common.workloads import get as get_workload
from hpcdl.common.workloads import names as workload_names

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

#: The largest seed that NumPy takes.
MAX_SEED = 2**32 - 1
PRECISIONS = ("float32", "float64", "mixed_float16", "mixed_bfloat16")


def _seconds_since_1970(what: str, text: str) -> float:
    return parse_number(what, text, example="$(date -d 18:00 +%s)")


def _interval(what: str, text: str) -> str:
    parse_interval(text, what)
    return text


def _function(what: str, text: str) -> str:
    if not _FUNCTION.fullmatch(text):
        raise BadInput(f"{what} must be module:function; received {text!r}; pass e.g. my_module:data")
    return text


@dataclass(frozen=True)
class RunSettings:
    """What `hpcdl.init` and `Run.fit` are told from outside, through the environment. None: not told."""

    strategy: str = option(
        "auto", "NAME", f"use strategy NAME: {', '.join(STRATEGIES)} (default: auto)", name_out_of(STRATEGIES)
    )
    replicas_per_process: Optional[int] = option(
        None, "R", "train R replicas in each process (default: the devices decide; 1 on a CPU)", at_least(1)
    )
    seed: Optional[int] = option(
        None,
        "N",
        "start all random numbers from N (default: what the script says, else 0)",
        at_least(0, MAX_SEED),
    )
    precision: Optional[str] = option(
        None,
        "NAME",
        f"compute in NAME: {', '.join(PRECISIONS)} (default: what the script says, else float32)",
        name_out_of(PRECISIONS),
    )
    xla: bool = switch("compile the steps of run.fit by XLA (in one process of one replica only)")
    run_dir: Optional[str] = option(None, "DIR", "keep checkpoints and records in DIR", folder)
    fresh: bool = switch("start anew: move an existing run folder aside instead of resuming from it")
    checkpoint_every: Optional[str] = option(
        None,
        "WHEN",
        "save a checkpoint every WHEN, e.g. 10min, 500steps, 1epoch (default: 10min,1epoch)",
        _interval,
    )
    end_time: Optional[float] = option(
        None,
        "SECONDS",
        "save and stop before this time, in seconds since 1970 (default: Slurm's)",
        _seconds_since_1970,
    )
    controller: Optional[str] = option(
        None,
        "NAME",
        "only for ranks that your own mpirun or srun starts: meet through mpi or gloo (default: mpi, or gloo where"
        " HPCDL_RENDEZVOUS_DIR is set); for those that hpcdl starts see --launcher",
        name_out_of(("mpi", "gloo")),
    )

    def to_environ(self) -> Dict[str, str]:
        """Gives the variables of what differs from the default."""
        return to_environ(self, "HPCDL_")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> RunSettings:
        """Reads what `to_environ` gave; an empty variable counts as not set.

        Raises:
            BadInput: A variable is malformed; the message names it.
        """
        return from_environ(cls, environ, "HPCDL_")


@dataclass(frozen=True)
class LaunchOptions:
    """How the ranks are started on this machine."""

    instead = {"-np": "--np, or -n"}

    np: Optional[int] = option(
        None,
        "N",
        "start N processes (default: 1; under mpirun or srun their world; over the nodes of a Slurm job, or from its"
        " login node or in an image, as many as it has tasks)",
        at_least(1),
        "-n",
    )
    launcher: str = option(
        "auto",
        "NAME",
        "let the ranks that hpcdl starts meet through mpi, or gloo, which needs no MPI (default: mpi, over the nodes of"
        " a Slurm job gloo)",
        name_out_of(("auto", "mpi", "gloo")),
    )
    oversubscribe: bool = switch("allow more replicas than cores")
    restarts: int = option(
        0,
        "N",
        "start a run that was killed again from its checkpoint, up to N times (default: 0)",
        at_least(0),
    )
    dry_run: bool = switch(
        "print the plan and the command; train nothing, record nothing (a script runs up to its first fit or loop;"
        " data that are missing are fetched)"
    )
    log_dir: Optional[str] = option(
        None, "DIR", "write one log per rank to DIR (default: a new folder in hpcdl-logs)", folder
    )


@dataclass(frozen=True)
class WorkloadOptions:
    """How a workload is trained. None: as the workload recommends."""

    epochs: Optional[int] = option(None, "N", "train for N epochs (module:function: default 1)", at_least(1))
    per_replica_batch_size: Optional[int] = option(
        None, "N", "give each replica N samples in a step (module:function: default 32)", at_least(1)
    )
    global_batch_size: Optional[int] = option(
        None, "N", "give all replicas together N samples in a step", at_least(1)
    )
    reference_batch_size: Optional[int] = option(
        None,
        "N",
        "take the learning rate as chosen for a global batch of N (default: of a workload the recommended batch size,"
        " else the one that is given)",
        at_least(1),
    )
    learning_rate: Optional[float] = option(
        None, "X", "start from learning rate X, before scaling", positive_number
    )
    lr_scaling: Optional[str] = option(
        None,
        "NAME",
        "scale the learning rate by f = global / reference batch size (linear), its root (sqrt), 1 (none)",
        name_out_of(LR_SCALINGS),
    )
    warmup_epochs: Optional[float] = option(
        None, "X", "raise the learning rate to its scaled value over X epochs", number_from_0
    )
    scale_epochs: bool = switch("divide the epochs by the number of replicas, rounded up")
    data_dir: Optional[str] = option(None, "DIR", "read the data set from DIR", folder)
    data: Optional[str] = option(
        None, "MODULE:FUNCTION", "take the data for module:function from this function", _function
    )

    def __post_init__(self) -> None:
        if self.per_replica_batch_size is not None and self.global_batch_size is not None:
            raise BadInput(
                "pass --per-replica-batch-size or --global-batch-size; received both"
                f" ({self.per_replica_batch_size} and {self.global_batch_size}); leave one of them out"
            )


@dataclass(frozen=True)
class TrainCommand:
    """A parsed command line of ``hpcdl train``; ``script_args`` are those of a ``*.py`` TARGET."""

    settings: RunSettings
    launch: LaunchOptions
    options: WorkloadOptions
    target: str
    script_args: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kind, data = self.target_kind, self.options.data
        has_no_folder = kind == "function"
        if kind == "workload":  # a wrong name is refused before anything is started
            has_no_folder = get_workload(self.target).data == SYNTHETIC
        if has_no_folder and self.options.data_dir is not None:
            raise BadInput(
                f"--data-dir is for the ready data sets; received {self.options.data_dir} with {self.target}, which"
                " takes its data from elsewhere; leave it out"
            )
        if kind == "function" and data is None:
            raise BadInput(
                f"{self.target} gives a model, and needs --data with a function that gives its data; received none;"
                f" pass e.g. --data {self.target.partition(':')[0]}:data"
            )
        if kind == "workload" and data is not None:
            raise BadInput(
                f"a workload has its own data; received --data {data} with {self.target}; leave it out, or give the"
                " model by module:function, too"
            )

    @property
    def target_kind(self) -> str:
        """``script`` (``a.py``), ``workload`` (``data/network``) or ``function`` (``module:function``)."""
        return target_kind(self.target)


def target_kind(target: str) -> str:
    """Tells ``script``, ``workload`` and ``function`` apart by the form of TARGET.

    Raises:
        BadInput: It has none of the forms.
    """
    if target.endswith(".py") and not target.startswith("-"):
        return "script"
    if _FUNCTION.fullmatch(target):
        return "function"
    if re.fullmatch(r"[A-Za-z0-9_][\w-]*/[\w.-]+", target):
        return "workload"
    of_network = [name for name in workload_names() if name.partition("/")[2] == target]
    way_out = f"did you mean {', '.join(of_network)}" if of_network else "e.g. fashion_mnist/cnn_dropout"
    raise BadInput(
        f"TARGET must be a script *.py, a workload data/network or module:function; received {target!r}; {way_out}"
    )


def check_script(target: str) -> None:
    """Refuses a script that is not there.

    Raises:
        BadInput: There is none.
    """
    if not os.path.isfile(target):
        raise BadInput(f"TARGET must be a script that exists; received {target}; check the path")


def parse_train(argv: Sequence[str], prog: str = "hpcdl train") -> TrainCommand:
    """Parses what stands after ``hpcdl train``.

    hpcdl's options stand before TARGET. After a script everything is the script's; after a workload or
    ``module:function`` options are hpcdl's again. Of a script, options that say how it is started are refused where
    its text (but its docstring) does not hold them, unless ``--`` stands before it: most likely they are hpcdl's at the
    wrong place.
    ``--help`` prints the help and leaves with SystemExit(0).

    Args:
        argv: The words.
        prog: What the user typed before them, for help and messages.

    Raises:
        BadInput: An option is unknown, malformed or misplaced, or TARGET is missing, has no known form, or is a
            workload that there is not.
    """
    return parse_train_words(argv, prog, {})[0]


def parse_train_words(
    argv: Sequence[str], prog: str, further: Mapping[str, Any]
) -> Tuple[TrainCommand, Dict[str, Any]]:
    """Parses as `parse_train` does, with ``further`` groups of options that only the caller knows.

    Returns:
        What is trained, and all values by field name.

    Raises:
        BadInput: As `parse_train`.
    """
    groups = {"starting ranks on this machine": LaunchOptions, **further}
    return parse_target(train_parser(prog, _DESCRIPTION, _EPILOG, groups), argv, prog)


def train_parser(
    prog: str,
    description: str,
    epilog: str,
    further: Mapping[str, Any],
    settings: Any = RunSettings,
    options: Any = WorkloadOptions,
) -> OptionParser:
    """Makes a parser of the words that every command with a TARGET takes, and of ``further`` groups.

    Args:
        prog: What the user typed before the words.
        description: What the help starts with.
        epilog: What the help ends with.
        further: Groups of the command's own.
        settings: `RunSettings`, as far as the command takes them.
        options: `WorkloadOptions`, likewise.
    """
    groups = {
        "the run": settings,
        **further,
        "workloads and functions (default: as the workload recommends, or as Keras does)": options,
    }
    return OptionParser(prog, f"{prog} [OPTIONS] TARGET ...", description, epilog, groups)


def parse_target(
    parser: OptionParser, argv: Sequence[str], prog: str, others: Sequence[Any] = ()
) -> Tuple[TrainCommand, Dict[str, Any]]:
    """Parses the words of a command that takes a TARGET.

    Args:
        parser: Made by `train_parser`.
        argv: The words.
        prog: What the user typed before them.
        others: Groups of options that the command has besides those of the parser.

    Returns:
        What is trained, and all values by field name, for the groups that only the caller knows.

    Raises:
        BadInput: As `parse_train`.
    """
    before, target, after = parser.split(argv)
    is_script = target is not None and target.endswith(".py")
    words = [*before, *(() if is_script else after)]
    _refuse_bare_batch_size(words)
    values = parser.parse(words)
    if target is None:
        raise BadInput(
            f"{prog} needs a TARGET (script.py, data/network or module:function); received none;"
            f" e.g. {prog} fashion_mnist/cnn_dropout"
        )
    target_kind(target)
    if is_script and list(argv[len(before) : len(before) + 1]) != ["--"]:
        starting = {*parser.names, *names_of(*others)} - {*names_of(RunSettings, WorkloadOptions)}
        _refuse_misplaced(prog, target, after, starting)
    options = take(WorkloadOptions, values)
    if is_script and options != WorkloadOptions():
        flags = ", ".join(flag(name) for name in changed(options))
        raise BadInput(
            f"a script takes no options of workloads; received {flags} before {target};"
            f" put them after {target} if they are the script's own"
        )
    command = TrainCommand(
        take(RunSettings, values),
        take(LaunchOptions, values),
        options,
        target,
        tuple(after) if is_script else (),
    )
    return command, values


def train_argv(command: TrainCommand) -> List[str]:
    """Writes a command as words that `parse_train` reads as the same command."""
    words = train_words(command)
    num_of_target = 1 + len(command.script_args)
    return [*words[:-num_of_target], "--", *words[-num_of_target:]] if command.script_args else words


def train_words(command: TrainCommand) -> List[str]:
    """Writes a command as a person would, for records: what follows a script is not marked as its own."""
    parts = (command.settings, command.launch, command.options)
    return [*(word for part in parts for word in to_argv(part)), command.target, *command.script_args]


_DESCRIPTION = """\
Train TARGET: here, in one process or in several, or as one of the ranks that mpirun or srun started.

TARGET is
  script.py          a Keras script that calls hpcdl.init(); all that follows is the script's
  data/network       a ready workload, e.g. fashion_mnist/cnn_dropout (hpcdl workloads lists them)
  module:function    a compiled Keras model that your function returns, with --data module:function for
                     ((x_train, y_train), (x_test, y_test)), or for two data sets
Options of hpcdl stand before TARGET; after a workload or module:function they may follow it. After a script those that
say how it is started are refused, if its text, beside its docstring, does not hold them: -- before the script says that
they are its own."""

_EPILOG = """\
examples:
  hpcdl train --np 2 my_script.py --my-flag
  hpcdl train --np 2 fashion_mnist/cnn_dropout --epochs 2
  hpcdl train --np 2 --replicas-per-process 2 --strategy hybrid --oversubscribe fashion_mnist/cnn_dropout
  hpcdl train --np 2 my_module:build --data my_module:data --epochs 5
  hpcdl train --np 8 --dry-run fashion_mnist/cnn_dropout"""


def _refuse_misplaced(prog: str, target: str, after: Sequence[str], starting: Collection[str]) -> None:
    """Refuses hpcdl's own options behind a script, which would begin another run than the one that is meant."""
    # of -n4 and --np=4
    names = {word: word[:2] if re.fullmatch(r"-\w\d+", word) else word.partition("=")[0] for word in after}
    misplaced = [word for word in after if names[word] in starting]
    if not misplaced or not os.path.isfile(target):
        return
    text = _without_docstring(Path(target).read_text(encoding="utf-8", errors="replace"))
    for word in misplaced:
        name = names[word]
        if not _is_in(text, name):
            raise BadInput(
                f"{prog}'s own options stand before TARGET; received {word} after {target}, which does not know"
                f" {name}; write {prog} {word} ... {target}, or, if it does, {prog} ... -- {target} {word}"
            )


def _without_docstring(text: str) -> str:
    """Leaves out what a script says of itself, such as how it is started; docopt reads its options there."""
    if "docopt" in text:
        return text
    try:
        with warnings.catch_warnings():  # of a script's escapes, which Python tells when it runs
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):  # none of this Python's: all of it counts
        return text
    if ast.get_docstring(tree, clean=False) is None:
        return text
    return text.replace(ast.get_source_segment(text, tree.body[0]) or "", "", 1)


def _is_in(text: str, name: str) -> bool:
    """Says whether the text of a script holds an option: as ``--log-dir``, as log_dir or in quotes without dashes."""
    bare = re.escape(name.lstrip("-"))
    forms = [rf"(?<![\w-]){re.escape(name)}(?![\w-])", rf"""["']{bare}["']"""]
    if "-" in bare:
        forms.append(rf"\b{name[2:].replace('-', '_')}\b")
    return re.search("|".join(forms), text) is not None


def _refuse_bare_batch_size(words: Sequence[str]) -> None:
    for word in words:
        if word.partition("=")[0] in ("--batch-size", "--batch_size", "-b"):
            raise BadInput(
                f"a batch size must say whose it is; received {word}; use --per-replica-batch-size for one"
                " replica or --global-batch-size for all together"
            )
