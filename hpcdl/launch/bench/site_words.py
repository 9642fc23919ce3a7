"""The words of ``hpcdl bench --site NAME``: those of a study, and sbatch's own, with lists of nodes and processes.

Synopsis::

    is_meant(["-N", "1,2", "synthetic/resnet50"])           # True: only a site has nodes
    command, values = parse_target(site_parser("hpcdl bench"), argv, "hpcdl bench")
    take(SiteJobOptions, values).of_points()                # of each point: JobOptions(nodes=1), ...
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.options import OptionParser, at_least, option, positive_number, refused_by, retold, switch
from hpcdl.common.words import train_parser
from hpcdl.launch.bench.ratios import FEWEST_UNPAIRED
from hpcdl.launch.bench.words import (
    StudyRunSettings,
    StudyWorkloadOptions,
    scaling_option,
    steps_option,
    study_option,
    trace_option,
    untimed_option,
    whole_numbers,
)
from hpcdl.launch.submission.words import JobOptions, JobRunSettings, PlaceOptions

_DESCRIPTION = """\
Measure how the training of TARGET scales at a site: one job for each point and repeat. The same command again submits
what is missing; hpcdl bench report reads what is done. Runs and jobs have their folders in that of the study."""
_EPILOG = """\
examples:
  hpcdl bench --site bridges2 -N 1,2,4 -t 20 -A abc123p --dry-run synthetic/resnet50
  hpcdl bench --site bridges2 -N 1,2,4 -t 20 -A abc123p --scaling weak,strong --study bench/first synthetic/resnet50"""


@dataclass(frozen=True)
class SiteStudyOptions:
    """What a study at a site measures."""

    scaling: Tuple[str, ...] = scaling_option()
    repeat: int = option(
        FEWEST_UNPAIRED,
        "N",
        f"measure each point in N jobs (default: {FEWEST_UNPAIRED}, the fewest that give an interval)",
        at_least(1),
    )
    steps: int = steps_option("job")
    untimed_steps: int = untimed_option()
    controls: bool = switch("tell the parts of a step apart as well: up to three times as many jobs")
    trace: bool = trace_option()
    max_node_hours: Optional[float] = option(
        None, "X", "refuse a study that may take more than X node-hours", positive_number
    )
    study: Optional[Path] = study_option()


class SiteRunSettings(StudyRunSettings):
    """What the runs of a study are told whose ranks a job starts."""

    refused = refused_by(StudyRunSettings, JobRunSettings)


@dataclass(frozen=True)
class SitePlaceOptions(PlaceOptions):
    """Where the jobs go, and inside what."""

    refused = {
        "jobs_dir": ("a study has many jobs, each in the folder of its run", "pass --study DIR"),
        "executor": ("jobs of a study go to Slurm, or run here where there is none", "leave it out"),
        "when": ("Slurm says of one job when it would start", "use hpcdl submit --when for a point"),
    }

    dry_run: bool = retold(
        PlaceOptions,
        "dry_run",
        "print the points and the node-hours that they may take; write nothing, submit nothing",
    )


@dataclass(frozen=True)
class SiteJobOptions(JobOptions):
    """sbatch's own words; of nodes and processes lists, one of each point."""

    refused = {
        "job_name": ("jobs of a study are called after their points", "leave it out"),
        **{
            name: ("no job of a study is started again by itself", "leave it out; the same command goes on")
            for name in ("no_requeue", "max_requeues")
        },
    }

    nodes: Tuple[int, ...] = option(  # type: ignore[assignment]
        (1,), "LIST", "measure on these numbers of nodes (default: 1)", whole_numbers, "-N"
    )
    np: Tuple[int, ...] = option(  # type: ignore[assignment]
        (), "LIST", "start these numbers of processes in all (default: the strategy and the GPUs decide)",
        whole_numbers, "-n",
    )  # fmt: skip

    def of_points(self) -> List[JobOptions]:
        """Gives the words of each point.

        Raises:
            BadInput: The lists do not fit together.
        """
        nodes = self.nodes * len(self.np) if len(self.nodes) == 1 and self.np else self.nodes
        processes: Sequence[Optional[int]] = self.np or [None] * len(nodes)
        pairs = sorted(set(zip(nodes, processes)), key=lambda pair: (pair[1] or pair[0], pair[0]))
        if self.np and (len(nodes) != len(self.np) or len(set(self.np)) < len(pairs)):
            raise BadInput(
                "--np must name a number of processes for each of --nodes, another one for each point; received"
                f" {','.join(map(str, self.np))} for {','.join(map(str, self.nodes))}; leave --np out"
            )
        shared = {field.name: getattr(self, field.name) for field in fields(JobOptions)}
        return [JobOptions(**{**shared, "nodes": n, "np": p}) for n, p in pairs]


def is_meant(argv: Sequence[str]) -> bool:
    """Says whether the words of ``hpcdl bench run`` ask for a site."""
    words = hpcdl_words(site_parser("hpcdl bench"), argv)
    return any(word.partition("=")[0] in ("--site", "--nodes") or word.startswith("-N") for word in words)


def hpcdl_words(parser: OptionParser, argv: Sequence[str]) -> List[str]:
    """Gives the words beside TARGET that are no script's own."""
    before, target, after = parser.split(argv)
    is_script = target is not None and target.endswith(".py")
    return [*before, *(() if is_script else after)]


def site_parser(prog: str) -> OptionParser:
    """Makes the parser."""
    groups = {
        "the study": SiteStudyOptions,
        "the jobs (sbatch's own words)": SiteJobOptions,
        "where they run": SitePlaceOptions,
    }
    return train_parser(prog, _DESCRIPTION, _EPILOG, groups, SiteRunSettings, StudyWorkloadOptions)
