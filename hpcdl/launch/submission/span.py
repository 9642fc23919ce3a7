"""A run over the nodes of a Slurm job that the user holds: ``hpcdl train`` there, through srun.

Synopsis::

    status = span(command, read_allocation(os.environ), inside=None)
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from hpcdl.common.errors import EXIT_DONE
from hpcdl.common.saying import say
from hpcdl.common.words import LaunchOptions, RunSettings, TrainCommand, train_argv
from hpcdl.launch.outcome import Outcome
from hpcdl.launch.placement import rendezvous_dir, shell_line, without_world
from hpcdl.launch.sites.live import parse_mpi_types, run_text
from hpcdl.launch.starting import log_folder, print_plan, run_until_done, said_environ, with_source
from hpcdl.launch.stdout import write_to_stdout
from hpcdl.launch.submission.allocation import (
    Allocation,
    choose_mpi_type,
    end_time_environ,
    environ_for_step,
    lay_out_allocation,
)
from hpcdl.launch.submission.argv import srun_argv
from hpcdl.launch.submission.explain import describe
from hpcdl.launch.submission.inside import Inside
from hpcdl.launch.submission.srun import run_step


def span(command: TrainCommand, allocation: Allocation, inside: Optional[Inside]) -> int:
    """Starts the ranks over the nodes of a Slurm job through srun, and waits for them."""
    launcher = "mpi" if command.launch.launcher == "mpi" else "gloo"
    mpi = (
        choose_mpi_type(os.environ, parse_mpi_types(run_text(["srun", "--mpi=list"])))
        if launcher == "mpi"
        else None
    )
    settings = RunSettings.from_environ(said_environ(command, launcher))
    replicas = settings.replicas_per_process or 1
    layout = lay_out_allocation(allocation, command.launch.np, replicas, launcher, mpi)
    log_dir = Path(os.path.abspath(str(log_folder(command))))
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
            status = print_plan(train_argv(command), layout.world_size, without_world(os.environ))
        print("layout     " + describe(layout))
        print("command    " + shell_line(step(command), {} if inside is not None else layout.environ))
        return status
    environ = {**environ_for_step(os.environ), **added(command)}
    environ.update(end_time_environ(allocation, environ))
    say(f"{describe(layout)}, in job {allocation.job_id}; logs in {log_dir}")
    if inside is not None:
        environ.update(inside.prepare(log_dir, environ.get("PATH", os.defpath)))
    return run_until_done(run, command, with_source(environ), log_dir)


def _without_launch(command: TrainCommand) -> TrainCommand:
    """Leaves out how ranks are started, for words that go to a rank."""
    return replace(command, launch=LaunchOptions())
