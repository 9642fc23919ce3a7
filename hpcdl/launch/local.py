"""The command ``hpcdl train``: run TARGET here, in one process or several, or join the launcher around.

* Started by mpirun, srun or horovodrun itself, it joins: each process becomes its rank.
* In a Slurm job that spans nodes, or whose shell is not on one of them, srun starts the ranks on all of them.
* One process needs no launcher: it is a child of this one, on the same terminal.
* Otherwise it starts the ranks on this machine, waits for them, and tells the first failure once.

Synopsis::

    sys.exit(train_main(["-n", "2", "fashion_mnist/cnn_dropout", "--epochs", "2"]))
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
from typing import Callable, Dict, List, Mapping, NoReturn, Optional, Sequence

import hpcdl
from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_REQUEUE, BadInput
from hpcdl.common.failures import failure_path, read_failures
from hpcdl.common.options import take
from hpcdl.common.rank_start import log_path
from hpcdl.common.records import read_run_dirs
from hpcdl.common.saying import say
from hpcdl.common.topology import Topology, read_topology
from hpcdl.common.words import LaunchOptions, RunSettings, TrainCommand, parse_train_words, train_argv
from hpcdl.launch.alone import run_alone
from hpcdl.launch.git import source_of
from hpcdl.launch.machine import read_machine
from hpcdl.launch.mpirun import Mpirun, find_mpirun, read_version
from hpcdl.launch.outcome import Outcome, conclude, render, summary
from hpcdl.launch.placement import Placement, place, rendezvous_dir, shell_line, start_lines, without_world
from hpcdl.launch.ranks import start_ranks
from hpcdl.launch.show import draw_each
from hpcdl.launch.sites.live import parse_mpi_types, run_text
from hpcdl.launch.submission.allocation import (
    Allocation,
    choose_mpi_type,
    environ_for_step,
    find_end_time,
    lay_out_allocation,
    read_allocation,
)
from hpcdl.launch.submission.argv import srun_argv
from hpcdl.launch.submission.explain import describe
from hpcdl.launch.submission.inside import ImageOptions, Inside, plan_inside
from hpcdl.launch.submission.srun import run_step
from hpcdl.launch.watch import Interrupts, LogFollower, watch

_LOGS = Path("hpcdl-logs")


def train_main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl train ARGV``.

    Returns:
        The exit status; where this process becomes a rank, it does not return.

    Raises:
        BadInput: The command line is wrong, or asks for more than this machine has.
    """
    command, values = parse_train_words(argv, "hpcdl train", {"in a Slurm job that you hold": ImageOptions})
    image = take(ImageOptions, values)
    topology = read_topology(os.environ, socket.gethostname())
    allocation = read_allocation(os.environ)
    inside = plan_inside(image, command, os.environ)
    if inside is not None and (topology.world_size > 1 or allocation is None):
        raise BadInput(
            f"--image is for ranks that hpcdl starts by srun in a Slurm job; received {image.image} outside of one, or"
            " in a rank; use hpcdl submit or hpcdl shell, or enter the image yourself"
        )
    argv = train_argv(command)
    if topology.world_size > 1:
        return _join(command, topology, argv)

    is_step = topology.launcher == "srun" and command.launch.np is None
    if allocation is not None and (inside is not None or (allocation.needs_srun and not is_step)):
        return _span(command, allocation, inside)

    np = command.launch.np or 1
    # One process needs no MPI, and some MPIs refuse to run in a process that no mpirun started.
    uses_mpi = command.launch.launcher != "gloo" and np > 1
    environ = _environ(command, "mpi" if uses_mpi else "gloo")
    settings = RunSettings.from_environ(environ)
    if settings.controller == "mpi" and np > 1 and not uses_mpi:
        raise BadInput(
            "MPI connects only ranks that mpirun started; received launcher gloo with controller mpi;"
            " leave one of them out"
        )
    placement = place(
        read_machine(os.environ), np, settings.replicas_per_process or 1, command.launch.oversubscribe
    )
    mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version) if uses_mpi else None
    is_alone = np == 1 and command.launch.restarts == 0 and command.launch.log_dir is None
    if command.launch.dry_run:
        status = _plan(argv, np, environ)
        if status == EXIT_DONE:
            print("\n".join(_dry_run_lines(command, environ, None if is_alone else placement, mpirun)))
        return status
    environ = _with_source(environ)
    if is_alone:
        return run_alone(runtime_argv(argv), environ)
    log_dir = _log_folder(command)
    log_dir.mkdir(parents=True, exist_ok=True)
    say(f"{placement.describe()} on {socket.gethostname()}; logs in {log_dir}")

    def run(command: TrainCommand, environ: Mapping[str, str]) -> Outcome:
        return run_ranks(runtime_argv(train_argv(command)), placement, log_dir, environ, mpirun)

    return _run_until_done(run, command, environ, log_dir)


def runtime_argv(argv: Sequence[str]) -> List[str]:
    """Builds the command of one rank."""
    return [sys.executable, "-m", "hpcdl.runtime", *argv]


def resuming(command: TrainCommand) -> TrainCommand:
    """Gives the command for starting again: the run is there by now, so --fresh must not move it aside."""
    return replace(command, settings=replace(command.settings, fresh=False))


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


def tail(path: Path, num_lines: int) -> List[str]:
    """Reads the last lines of a file that may be long, or missing; of a progress bar its last state."""
    try:
        with open(str(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * num_lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-num_lines:]


def _join(command: TrainCommand, topology: Topology, argv: Sequence[str]) -> int:
    """Becomes the rank that an outer launcher started."""
    np = command.launch.np
    if np is not None and np != topology.world_size:
        raise BadInput(
            f"np must be the world size of the launcher that started hpcdl; received np={np}, and"
            f" {topology.launcher} started {topology.world_size} processes;"
            " leave --np out, or run hpcdl train without that launcher"
        )
    environ = {**os.environ, **command.settings.to_environ()}
    if command.launch.dry_run:
        if not topology.is_rank_0:
            return EXIT_DONE
        return _plan(argv, topology.world_size, without_world(environ))
    return _become(argv, environ)


def _span(command: TrainCommand, allocation: Allocation, inside: Optional[Inside]) -> int:
    """Starts the ranks over the nodes of a Slurm job through srun, and waits for them."""
    launcher = "mpi" if command.launch.launcher == "mpi" else "gloo"
    mpi = (
        choose_mpi_type(os.environ, parse_mpi_types(run_text(["srun", "--mpi=list"])))
        if launcher == "mpi"
        else None
    )
    replicas = RunSettings.from_environ(_environ(command, launcher)).replicas_per_process or 1
    layout = lay_out_allocation(allocation, command.launch.np, replicas, launcher, mpi)
    log_dir = Path(os.path.abspath(str(_log_folder(command))))
    shared = {"HPCDL_STATUS_DIR": str(log_dir), "HPCDL_RENDEZVOUS_DIR": str(rendezvous_dir(log_dir))}
    python = sys.executable if inside is None else inside.python

    def added(command: TrainCommand) -> Dict[str, str]:
        return {**layout.environ, **shared, **command.settings.to_environ()}

    def step(command: TrainCommand) -> List[str]:
        enter = [] if inside is None else inside.enter(layout, log_dir, added(command))
        start = [*enter, python, "-m", "hpcdl.common.rank_start", "--log-dir", str(log_dir), "--"]
        return srun_argv(
            layout, [*start, python, "-m", "hpcdl.runtime", *train_argv(_without_launch(command))]
        )

    def run(command: TrainCommand, environ: Mapping[str, str]) -> Outcome:
        return run_step(step(command), environ, log_dir, os.getcwd(), write_to_stdout)

    if command.launch.dry_run:
        status = EXIT_DONE
        if inside is None:  # TensorFlow, which the plan asks, may be in the image alone
            status = _plan(train_argv(command), layout.world_size, without_world(os.environ))
        print("layout     " + describe(layout))
        print("command    " + shell_line(step(command), {} if inside is not None else layout.environ))
        return status
    environ = {**environ_for_step(os.environ), **added(command)}
    end = find_end_time(allocation.job_id, environ)
    if end is not None:
        environ["HPCDL_END_TIME"] = f"{end:.0f}"
    say(f"{describe(layout)}, in job {allocation.job_id}; logs in {log_dir}")
    if inside is not None:
        environ.update(inside.prepare(log_dir, environ.get("PATH", os.defpath)))
    return _run_until_done(run, command, _with_source(environ), log_dir)


def _without_launch(command: TrainCommand) -> TrainCommand:
    """Leaves out how ranks are started, for words that go to a rank."""
    return replace(command, launch=LaunchOptions())


def _become(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, runtime_argv(argv), dict(environ))


def _environ(command: TrainCommand, controller: str) -> Dict[str, str]:
    """Hands on what the user said, in variables or, which wins, in words; ``controller`` is for want of a word."""
    said = {**os.environ, **command.settings.to_environ()}
    return {**said, "HPCDL_CONTROLLER": said.get("HPCDL_CONTROLLER") or controller}


def _with_source(environ: Mapping[str, str]) -> Dict[str, str]:
    """Tells the ranks which code of hpcdl they run, for their record."""
    source = source_of(Path(hpcdl.__file__).resolve().parent)
    return {**environ, **(source.to_environ() if source is not None else {})}


def _plan(argv: Sequence[str], np: int, environ: Mapping[str, str]) -> int:
    """Lets one process print what a world of np would do."""
    return subprocess.call(runtime_argv(argv), env={**environ, "HPCDL_PLAN_WORLD_SIZE": str(np)})


def _dry_run_lines(
    command: TrainCommand,
    environ: Mapping[str, str],
    placement: Optional[Placement],
    mpirun: Optional[Mpirun],
) -> List[str]:
    """Says what would be started; placement None: one process without a launcher."""
    rank_command = runtime_argv(train_argv(replace(command, launch=replace(command.launch, dry_run=False))))
    if placement is None:
        return ["placement  1 rank, a process without a launcher", "command    " + shell_line(rank_command)]
    start = start_lines(rank_command, placement, _log_folder(command), environ, mpirun)
    added = {name: value for name, value in start[0].environ.items() if os.environ.get(name) != value}
    lines = ["placement  " + placement.describe(), "command    " + shell_line(start[0].argv, added)]
    if len(start) > 1:
        lines.append("           and likewise for the other ranks")
    return lines


def _log_folder(command: TrainCommand) -> Path:
    """Names the folder of the ranks' logs; one of its own is made, unless this is a dry run."""
    if command.launch.log_dir is not None:
        return Path(command.launch.log_dir)
    return _LOGS / "dry-run" if command.launch.dry_run else new_log_dir(_LOGS, time.gmtime())


def _run_until_done(
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


def run_ranks(
    rank_command: Sequence[str],
    placement: Placement,
    log_dir: Path,
    environ: Mapping[str, str],
    mpirun: Optional[Mpirun] = None,
) -> Outcome:
    """Runs a command as ranks until nothing of it is left; rank 0 writes to this process' standard output."""
    with Interrupts() as interrupts:
        follower = LogFollower(log_path(log_dir, 0), failure_path(log_dir, 0), write_to_stdout)
        ranks = start_ranks(rank_command, placement, log_dir, environ, mpirun)
        try:
            stopped_by = watch(ranks, follower, interrupts)
        finally:
            ranks.kill()  # whatever went wrong here, and whatever the ranks themselves have started
    return conclude(ranks.ends(), read_failures(log_dir), stopped_by, ranks.had_to_kill)


def write_to_stdout(data: bytes) -> None:
    """Passes on what a rank has written; a reader who has left does not end the run."""
    try:
        sys.stdout.flush()
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        # Whoever read has left (`| head`). The run's log has everything.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)


def _forget(log_dir: Path) -> None:
    """Bad input leaves nothing behind."""
    shutil.rmtree(str(log_dir), ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs' logs are there
        log_dir.parent.rmdir()
