"""What all ways to start ranks share: the words of a rank, the folder of logs, a dry run's plan, another start.

Synopsis::

    log_dir = log_folder(command)
    status = run_until_done(run, command, environ, log_dir)         # run(command, environ) starts the ranks once
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Sequence

from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_REQUEUE, BadInput
from hpcdl.common.options import folder_to_write
from hpcdl.common.records import read_run_dirs
from hpcdl.common.saying import say
from hpcdl.common.words import TrainCommand
from hpcdl.launch.git import own_source
from hpcdl.launch.outcome import Outcome, render, summary
from hpcdl.launch.show import draw_each
from hpcdl.launch.watch import tail

_LOGS = Path("hpcdl-logs")


def runtime_argv(argv: Sequence[str]) -> List[str]:
    """Builds the command of one rank."""
    return [sys.executable, "-m", "hpcdl.runtime", *argv]


def print_plan(argv: Sequence[str], np: int, environ: Mapping[str, str]) -> int:
    """Lets one process print what a world of np would do."""
    return subprocess.call(runtime_argv(argv), env={**environ, "HPCDL_PLAN_WORLD_SIZE": str(np)})


def said_environ(command: TrainCommand, controller: str) -> Dict[str, str]:
    """Hands on what the user said, in variables or, which wins, in words; ``controller`` is for want of a word."""
    said = {**os.environ, **command.settings.to_environ()}
    return {**said, "HPCDL_CONTROLLER": said.get("HPCDL_CONTROLLER") or controller}


def with_source(environ: Mapping[str, str]) -> Dict[str, str]:
    """Tells the ranks which code of hpcdl they run, for their record."""
    source = own_source()
    return {**environ, **(source.to_environ() if source is not None else {})}


def log_folder(command: TrainCommand) -> Path:
    """Names the folder of the ranks' logs; one of its own is made, unless this is a dry run.

    Raises:
        BadInput: It cannot be made or written.
    """
    if command.launch.log_dir is not None:
        return folder_to_write("--log-dir", command.launch.log_dir)
    if command.launch.dry_run:
        return _LOGS / "dry-run"
    try:
        return new_log_dir(_LOGS, time.gmtime())
    except OSError as problem:
        raise BadInput(
            f"the ranks' logs need a folder that can be made here; received {_LOGS}: {problem.strerror}; pass --log-dir"
        ) from problem


def new_log_dir(parent: Path, utc: time.struct_time) -> Path:
    """Makes a folder named after the time; two starts in one second get different ones."""
    name = time.strftime("%Y%m%dT%H%M%SZ", utc)
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = parent / (name + suffix)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(str(parent / name))


def resuming(command: TrainCommand) -> TrainCommand:
    """Gives the command for starting again: the run is there by now, so --fresh must not move it aside."""
    return replace(command, settings=replace(command.settings, fresh=False))


def run_until_done(
    run: Callable[[TrainCommand, Mapping[str, str]], Outcome],
    command: TrainCommand,
    environ: Mapping[str, str],
    log_dir: Path,
) -> int:
    """Runs the ranks, and again where the user asked for that and ranks died.

    Args:
        run: Runs them once, by the words and in the environment that it is given.
        command: What the user typed.
        environ: What the ranks get.
        log_dir: Folder of their logs.

    Returns:
        The exit status.
    """
    hostname = socket.gethostname()
    restarts_left = command.launch.restarts
    while True:
        outcome = run(command, environ)
        if outcome.status not in (EXIT_DONE, EXIT_REQUEUE):
            print(render(outcome, hostname, log_dir, tail), file=sys.stderr, flush=True)
        if restarts_left == 0 or not outcome.can_restart:
            break
        restarts_left -= 1
        command = resuming(command)
        environ = {name: value for name, value in environ.items() if name != "HPCDL_FRESH"}
        say(
            f"starting again from the last checkpoint, since {summary(outcome, hostname)}"
            f" (restarts left: {restarts_left})"
        )
    if outcome.status == EXIT_DONE:
        draw_each(read_run_dirs(log_dir))
    if outcome.status == EXIT_BAD_INPUT and command.launch.log_dir is None:
        _forget(log_dir)
    return outcome.status


def _forget(log_dir: Path) -> None:
    """Bad input leaves nothing behind, unless a script has trained before it came to that."""
    if any(run_dir.exists() for run_dir in read_run_dirs(log_dir)):
        return
    shutil.rmtree(str(log_dir), ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs' logs are there
        log_dir.parent.rmdir()
