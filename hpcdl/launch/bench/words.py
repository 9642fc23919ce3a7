"""The words of ``hpcdl bench run``: how much is measured, on one machine; at a site some of them are the same.

Synopsis::

    options = take(StudyOptions, parser.parse(["--np", "1,2", "--rounds", "7"]))
    options.np, options.window                              # (1, 2), Window(untimed_steps=15, timed_steps=80)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple

from hpcdl.common.checks import one_of, parse_whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.options import (
    at_least,
    file_to_write,
    folder_to_write,
    option,
    positive_number,
    retold,
    switch,
)
from hpcdl.common.words import LaunchOptions, RunSettings, WorkloadOptions
from hpcdl.launch.bench.measuring import Window

SCALINGS = ("weak", "strong")
#: More than any machine has.
MOST_REPLICAS = 10**9
FEWEST_UNTIMED = 10
FEWEST_TIMED = 10
_QUICK_STEPS = 30


def counts(what: str, text: str) -> Tuple[int, ...]:
    """Reads different whole numbers, joined by commas; gives them in order."""
    return tuple(sorted(set(whole_numbers(what, text))))


def whole_numbers(what: str, text: str) -> Tuple[int, ...]:
    """Reads whole numbers, joined by commas, as they were typed."""
    return tuple(parse_whole_number(what, part) for part in text.split(","))


def scalings(what: str, text: str) -> Tuple[str, ...]:
    """Reads kinds of scaling, joined by commas."""
    return tuple(one_of(what, part, SCALINGS) for part in text.split(","))


def scaling_option() -> Any:
    """Makes the option that all kinds of studies have for the scaling."""
    return option(
        ("weak",),
        "LIST",
        "scale weakly (fixed batch per replica), strongly (fixed global batch), or both (default: weak)",
        scalings,
    )


def steps_option(of: str) -> Any:
    """Makes the option for the steps that count; of fewer the 95th percentile would be any of them."""
    text = f"time N steps of each {of} (default: 80; at least {FEWEST_TIMED})"
    return option(80, "N", text, at_least(FEWEST_TIMED))


def untimed_option() -> Any:
    """Makes the option for the steps that do not count."""
    return option(
        15, "N", "leave out the first N steps (default: 15; at least 10, and 10 % of all)", at_least(0)
    )


def trace_option() -> Any:
    """Makes the option for a trace."""
    return switch("besides, trace the largest point: Horovod's timeline and TensorFlow's profiler")


def study_option() -> Any:
    """Makes the option for the study's folder."""
    text = "keep the records in DIR, and go on with what is there (default: a new folder bench/TARGET-TIME)"
    return option(None, "DIR", text, folder_to_write)


@dataclass(frozen=True)
class StudyRunSettings(RunSettings):
    """What the runs of a study are told."""

    refused = {
        "run_dir": ("a study has many runs, each in a folder of its own", "pass --study DIR"),
        "fresh": ("each run of a study has a new folder", "pass another --study"),
        "checkpoint_every": ("what a study trains is not kept", "leave it out"),
    }

    # A study has no --launcher: this word alone says by which the exchange is measured.
    controller: Optional[str] = retold(
        RunSettings,
        "controller",
        "let the ranks of a run meet, and exchange, through mpi or gloo (default: mpi)",
    )


class StudyWorkloadOptions(WorkloadOptions):
    """How the workload of a study is trained."""

    refused = {
        name: ("the runs of a study end after so many steps, whatever the epochs", "pass --steps N")
        for name in ("epochs", "scale_epochs")
    }


@dataclass(frozen=True)
class StudyOptions:
    """What a study measures, and how long."""

    instead = LaunchOptions.instead

    np: Tuple[int, ...] = option(
        (1, 2), "LIST", "measure these numbers of ranks (default: 1,2)", counts, "-n"
    )
    scaling: Tuple[str, ...] = scaling_option()
    rounds: int = option(9, "N", "measure all points in N rounds (default: 9)", at_least(1))
    steps: int = steps_option("launch")
    untimed_steps: int = untimed_option()
    timeout_min: float = option(
        10.0, "X", "end the study if a launch takes longer than X minutes (default: 10)", positive_number
    )
    quick: bool = switch(f"measure one round of {_QUICK_STEPS} steps, not the input's part: no intervals")
    trace: bool = trace_option()
    study: Optional[Path] = study_option()
    lock: Optional[Path] = option(
        None, "FILE", "lock FILE during each round, where others measure too", file_to_write
    )
    oversubscribe: bool = switch("allow more ranks than cores: such points are functional, not performance")
    dry_run: bool = switch("print the points and how long they take; measure nothing")

    @property
    def window(self) -> Window:
        """The steps that count.

        Raises:
            BadInput: Too few are left out, or too few timed.
        """
        timed = min(self.steps, _QUICK_STEPS) if self.quick else self.steps
        window = Window(self.untimed_steps, timed)
        check_window(window)
        return window


def check_window(window: Window) -> None:
    """Refuses to time the steps in which functions are compiled.

    Raises:
        BadInput: Too few are left out, or too few timed.
    """
    least = max(FEWEST_UNTIMED, -(-window.timed_steps // 9))  # a tenth of all steps
    if window.untimed_steps < least:
        raise BadInput(
            f"at least {FEWEST_UNTIMED} steps and 10 % of all must be left out, in which functions are compiled and"
            f" caches filled; received untimed_steps={window.untimed_steps} of {window.steps};"
            f" pass --untimed-steps {least} or more"
        )
    if window.timed_steps < window.untimed_steps:
        raise BadInput(
            f"as many steps must be timed as are left out; received steps={window.timed_steps} with"
            f" untimed_steps={window.untimed_steps}; pass --steps {window.untimed_steps} or more"
        )
