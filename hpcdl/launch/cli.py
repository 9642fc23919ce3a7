"""The ``hpcdl`` command: finds the subcommand, loads that one only, turns errors into one line and a status.

Synopsis::

    sys.exit(main(["train", "--np", "2", "train.py"]))
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Callable, Mapping, Optional, Sequence, Tuple

import hpcdl
from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, BadInput, HpcdlError
from hpcdl.launch.stdout import open_closed_streams


@dataclass(frozen=True)
class Command:
    """A subcommand: ``module:function`` takes what stands after its name and gives the exit status."""

    name: str
    entry: str
    purpose: str

    def load(self) -> Callable[[Sequence[str]], int]:
        """Imports the module of the command."""
        module, _, function = self.entry.partition(":")
        loaded: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
        return loaded


COMMANDS = (
    Command("train", "hpcdl.launch.local:train_main", "train a script or a workload on this machine"),
    Command(
        "submit",
        "hpcdl.launch.submission.command:submit_main",
        "the same as a Slurm job, in the site's image",
    ),
    Command("jobs", "hpcdl.launch.submission.jobs:jobs_main", "list jobs, or say what became of one"),
    Command("logs", "hpcdl.launch.submission.jobs:logs_main", "show what the ranks of a job write"),
    Command("cancel", "hpcdl.launch.submission.jobs:cancel_main", "end a job"),
    Command(
        "site", "hpcdl.launch.sites.command:main", "show what is known of a computing centre, or ask one"
    ),
    Command("workloads", "hpcdl.launch.workloads:main", "list what can be trained without a script"),
    Command("data", "hpcdl.launch.data:main", "say which data sets are here, or fetch them"),
    Command("doctor", "hpcdl.launch.doctor.command:main", "find out whether a run will work here"),
    Command("container", "hpcdl.launch.images:main", "get an image: build it, or fetch it from a registry"),
    Command("shell", "hpcdl.launch.shell:main", "work in an image on a node of a cluster"),
    Command("show", "hpcdl.launch.show:main", "show what runs gave, and draw their curves"),
    Command("bench", "hpcdl.launch.bench.command:main", "measure how fast training is, and how it scales"),
    Command("horovod", "hpcdl.launch.horovod:main", "install a Horovod that matches TensorFlow, or check it"),
)

_EXAMPLES = """\
examples:
  hpcdl train --np 2 my_script.py --my-flag        two ranks here; what follows the script is the script's
  hpcdl train --np 2 fashion_mnist/cnn_dropout     a ready workload, no script
  hpcdl train --dry-run --np 4 my_script.py        print the plan, train nothing
  hpcdl submit --site bridges2 -N 4 -t 8:00:00 -A abc123p my_script.py    the same as a Slurm job on 4 nodes
  hpcdl logs -f 12345                              what rank 0 of a job writes
  hpcdl workloads                                  networks, data sets, parameters
  hpcdl data fetch mnist                           on a login node, for compute nodes without internet
  hpcdl doctor --site bridges2 --nodes 2 -A abc123p    will it work there?
  hpcdl show runs                                  what the runs here gave, and their curves
  hpcdl horovod check                              does Horovod match this TensorFlow?

`hpcdl COMMAND --help` tells more. HPCDL_DEBUG=1 shows the traceback of an error.
Exit status: 0 done, 1 failed, 2 bad input (nothing written), 85 stopped to be requeued, 130 Ctrl-C."""


def main(argv: Optional[Sequence[str]] = None, *, commands: Sequence[Command] = COMMANDS) -> int:
    """Runs the command line.

    Args:
        argv: Arguments after the program's name; those of this process if None.
        commands: The subcommands that there are.

    Returns:
        The exit status.
    """
    open_closed_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments, commands)
        sys.stdout.flush()  # here, so that a closed pipe is met inside this `try`
        return status
    except HpcdlError as error:
        return _fail(f"hpcdl: {error}", error.exit_status, os.environ)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`hpcdl ... | head`): that is its right. Nothing may be flushed there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        line = f"hpcdl: unexpected {type(error).__name__}: {error}; HPCDL_DEBUG=1 shows where"
        return _fail(" ".join(line.split()), EXIT_FAILED, os.environ)


def render_help(commands: Sequence[Command]) -> str:
    """Writes what ``hpcdl --help`` prints."""
    width = max(len(command.name) for command in commands)
    rows = [f"  {command.name:<{width}}  {command.purpose}" for command in commands]
    usage = "usage: hpcdl COMMAND [OPTIONS]\n       hpcdl --help | --version"
    purpose = "Take a Keras model from a laptop script to a multi-node job."
    return "\n\n".join([usage, purpose, "\n".join(["commands:", *rows]), _EXAMPLES])


def find_command(name: str, commands: Sequence[Command]) -> Command:
    """Finds a subcommand by its name.

    Raises:
        BadInput: There is none; the message lists near names.
    """
    names: Tuple[str, ...] = tuple(command.name for command in commands)
    for command in commands:
        if command.name == name:
            return command
    if name.startswith("-"):  # --help is as near to --np as a command may be
        hint = did_you_mean(name, ("--help", "--version"), cutoff=0.7)
    else:
        hint = did_you_mean(name, names, cutoff=0.6)
    raise BadInput(f"unknown command {name!r}; {hint}all commands: {', '.join(names)}; see hpcdl --help")


def _run(arguments: Sequence[str], commands: Sequence[Command]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(render_help(commands), file=sys.stdout if arguments else sys.stderr)
        return EXIT_DONE if arguments else BadInput.exit_status
    if arguments[0] in ("-V", "--version"):
        print(f"hpcdl {hpcdl.__version__}")
        return EXIT_DONE
    try:
        return find_command(arguments[0], commands).load()(arguments[1:])
    except SystemExit as leaving:  # argparse, after it has printed a command's help
        return leaving.code if isinstance(leaving.code, int) else EXIT_DONE


def _fail(line: str, exit_status: int, environ: Mapping[str, str]) -> int:
    if environ.get("HPCDL_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    print(line, file=sys.stderr)
    return exit_status
