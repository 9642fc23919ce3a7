"""The command ``hpcdl train``: run TARGET here, in one process or several, or join the launcher around.

* Started by mpirun, srun or horovodrun itself, it joins: each process becomes its rank.
* In a Slurm job that spans nodes, or whose shell is not on one of them, srun starts the ranks on all of them.
* One process needs no launcher: it is a child of this one, on the same terminal.
* Otherwise it starts the ranks on this machine, waits for them, and tells the first failure once.

Synopsis::

    sys.exit(train_main(["-n", "2", "fashion_mnist/cnn_dropout", "--epochs", "2"]))
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import List, Mapping, NoReturn, Optional, Sequence

from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import take
from hpcdl.common.saying import say
from hpcdl.common.targets import check_target
from hpcdl.common.topology import Topology, read_topology
from hpcdl.common.words import RunSettings, TrainCommand, parse_train_words, train_argv
from hpcdl.launch.alone import run_alone
from hpcdl.launch.container import NO_IMAGE
from hpcdl.launch.machine import read_machine
from hpcdl.launch.mpirun import Mpirun, find_mpirun, read_version
from hpcdl.launch.outcome import Outcome
from hpcdl.launch.placement import Placement, place, shell_line, start_lines, without_world
from hpcdl.launch.ranks import run_ranks
from hpcdl.launch.starting import (
    log_folder,
    print_plan,
    run_until_done,
    runtime_argv,
    said_environ,
    with_source,
)
from hpcdl.launch.submission.allocation import Allocation, end_time_environ, read_allocation
from hpcdl.launch.submission.inside import ImageOptions, plan_inside
from hpcdl.launch.submission.span import span


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
    if topology.world_size > 1 or allocation is None:
        _refuse_image(image)
    inside = plan_inside(image, command, os.environ)
    argv = train_argv(command)
    if topology.world_size > 1:
        return _join(command, topology, allocation, argv)

    is_step = topology.launcher == "srun" and command.launch.np is None
    if allocation is not None and (inside is not None or (allocation.needs_srun and not is_step)):
        return span(command, allocation, inside)

    check_target(command, os.environ)  # of ranks each would come to it after TensorFlow is loaded
    np = command.launch.np or 1
    # One process needs no MPI, and some MPIs refuse to run in a process that no mpirun started.
    uses_mpi = command.launch.launcher != "gloo" and np > 1
    environ = said_environ(command, "mpi" if uses_mpi else "gloo")
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
        status = print_plan(argv, np, environ)
        if status == EXIT_DONE:
            print("\n".join(_dry_run_lines(command, environ, None if is_alone else placement, mpirun)))
        return status
    environ = with_source({**environ, **end_time_environ(allocation, environ)})
    if is_alone:
        return run_alone(runtime_argv(argv), environ)
    log_dir = log_folder(command)
    log_dir.mkdir(parents=True, exist_ok=True)
    say(f"{placement.describe()} on {socket.gethostname()}; logs in {log_dir}")

    def run(command: TrainCommand, environ: Mapping[str, str]) -> Outcome:
        return run_ranks(runtime_argv(train_argv(command)), placement, log_dir, environ, mpirun)

    return run_until_done(run, command, environ, log_dir)


def _refuse_image(options: ImageOptions) -> None:
    """Refuses what is said of an image where hpcdl starts no ranks inside one."""
    said = [] if options.image in (None, NO_IMAGE) else [f"--image {options.image}"]
    said += [] if options.site is None else [f"--site {options.site}"]
    if said:
        raise BadInput(
            f"--image and --site are for ranks that hpcdl starts by srun in a Slurm job; received {' '.join(said)}"
            " outside of one, or in a rank; use hpcdl submit or hpcdl shell, or leave it out and enter the image"
            " yourself"
        )


def _join(
    command: TrainCommand, topology: Topology, allocation: Optional[Allocation], argv: Sequence[str]
) -> int:
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
        return print_plan(argv, topology.world_size, without_world(environ))
    if topology.is_rank_0:  # what one rank knows, all heed; thousands need not ask Slurm
        environ.update(end_time_environ(allocation, environ))
    return _become(argv, environ)


def _become(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, runtime_argv(argv), dict(environ))


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
    start = start_lines(rank_command, placement, log_folder(command), environ, mpirun)
    added = {name: value for name, value in start[0].environ.items() if os.environ.get(name) != value}
    lines = ["placement  " + placement.describe(), "command    " + shell_line(start[0].argv, added)]
    if len(start) > 1:
        lines.append("           and likewise for the other ranks")
    return lines
