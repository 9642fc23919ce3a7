"""A study at a site: one job for each point and repeat, handed over as `hpcdl submit` does.

The folder of a study is that of one on this machine (`hpcdl.launch.bench.run`); in the folder of a measurement lies
that of its job, with ``job.sbatch`` and ``env.txt``. Nothing waits for the jobs: the same command again submits what is
missing, and `hpcdl bench report` reads what is done. Where no scheduler is, the jobs run here, one after the other.

Synopsis::

    sys.exit(main(["--site", "bridges2", "-N", "1,2,4", "-A", "abc123p", "--dry-run", "synthetic/resnet50"]))
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import EXIT_DONE, BadInput, HpcdlError
from hpcdl.common.files import is_there
from hpcdl.common.options import take
from hpcdl.common.records import read_json, write_json
from hpcdl.common.saying import count, say
from hpcdl.common.words import LaunchOptions, TrainCommand, parse_target, train_words
from hpcdl.launch.bench.batches import check_batches
from hpcdl.launch.bench.measuring import SCHEMA_VERSION, Window, how_it_ended
from hpcdl.launch.bench.opening import check_study, new_folder, open_study
from hpcdl.launch.bench.planning import (
    TRACE,
    PlannedPoint,
    bench_settings,
    check_growth,
    control_points,
    most_replicas,
    traced_point,
)
from hpcdl.launch.bench.ratios import FEWEST_UNPAIRED
from hpcdl.launch.bench.rounds import locked, round_name, shuffled
from hpcdl.launch.bench.site_words import SiteJobOptions, SiteStudyOptions, site_parser
from hpcdl.launch.bench.words import check_window
from hpcdl.launch.config import Config, read_config
from hpcdl.launch.machine import read_machine
from hpcdl.launch.sites.library import choose_site, config_dir, load_profile
from hpcdl.launch.sites.profile import Profile
from hpcdl.launch.submission.accounting import minutes_left
from hpcdl.launch.submission.explain import balance_line, cost
from hpcdl.launch.submission.folders import Submitted, ask_queue, find_job, state_of
from hpcdl.launch.submission.handover import hand_over
from hpcdl.launch.submission.job import Job
from hpcdl.launch.submission.layout import Layout, lay_out
from hpcdl.launch.submission.preparing import prepare, refuse_inside_job
from hpcdl.launch.submission.words import JobOptions, PlaceOptions, SubmitCommand

#: One of these makes a folder that of a job.
_OF_JOB = ("job.json", "handle.json")


@dataclass(frozen=True)
class SiteStudy:
    """A study at a site, worked out; nothing is written.

    Attributes:
        command: What is trained.
        place: Where the jobs go.
        profile: The site.
        config: The user's defaults.
        window: The steps that count.
        repeat: Jobs of each point.
        points: Of a round.
        jobs: sbatch's words of each point, by name.
        layouts: Where its ranks run, by name.
        traced: The point that a job of its own traces; None: no trace is wanted.
    """

    command: TrainCommand
    place: PlaceOptions
    profile: Profile
    config: Config
    window: Window
    repeat: int
    points: Tuple[PlannedPoint, ...]
    jobs: Mapping[str, JobOptions]
    layouts: Mapping[str, Layout]
    traced: Optional[PlannedPoint] = None

    def node_hours(self, name: str) -> float:
        """Gives what a job of a point takes at most."""
        layout = self.layouts[name]
        return layout.num_nodes * layout.time_limit_min / 60

    def all_node_hours(self) -> float:
        """Gives what all jobs take at most."""
        traced = self.node_hours(self.traced.name) if self.traced is not None else 0.0
        return traced + self.repeat * sum(self.node_hours(point.name) for point in self.points)

    def order(self) -> Iterator[Tuple[str, PlannedPoint, Path]]:
        """Gives of each job a title, its point and its folder in that of the study; each round has its own order."""
        for number in range(self.repeat):
            for point in shuffled(self.points, number):
                yield f"round {number + 1}, {point.name}", point, Path(round_name(number), point.name)
        if self.traced is not None:
            yield f"trace of {self.traced.name}", self.traced, Path(TRACE)

    def to_json(self) -> Dict[str, Any]:
        """Gives what the study's record keeps."""
        return {
            "site": self.profile.name,
            "target": self.command.target,
            "command": train_words(self.command),
            "window": asdict(self.window),
            "rounds": self.repeat,
            "points": [asdict(point) for point in self.points],
            "num_gpus": max(layout.gpus_per_node for layout in self.layouts.values()),
            "gpu_kind": self._all_of(lambda layout: layout.gpu_kind),
            "partition": self._all_of(lambda layout: layout.partition),
        }

    def _all_of(self, name: Callable[[Layout], Optional[str]]) -> Optional[str]:
        """Joins the names that layouts have for something; None: none has one."""
        names = {name(layout) for layout in self.layouts.values()}
        return ", ".join(sorted(filter(None, names))) or None

    def make_job(
        self, point: PlannedPoint, at: Path, argv: Sequence[str], environ: Mapping[str, str]
    ) -> Tuple[Job, Any]:
        """Decides everything about the job of a point; nothing is written."""
        settings = replace(self.command.settings, run_dir=str(at / "process-0"))
        # What a benchmark trained is not kept, so that there is nothing to go on with.
        words = replace(self.jobs[point.name], no_requeue=True, job_name=f"bench-{at.name}")
        place = replace(self.place, jobs_dir=str(at))
        if self.profile.site.scheduler == "none":
            place = replace(place, executor="debug")  # one after the other, in the foreground
        command = SubmitCommand(replace(self.command, settings=settings), words, place)
        further = bench_settings(point, self.window, most_replicas(self.points)).to_environ()
        return prepare(command, self.profile, self.config, ["bench", *argv], environ, further=further)


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench --site ...``.

    Raises:
        BadInput: The words are wrong, the site does not allow them, or the study is too dear; nothing was submitted.
        HpcdlError: A job that ran here failed.
    """
    prog = "hpcdl bench --site NAME"  # whose help has the options; that of hpcdl bench lists the parts
    command, values = parse_target(site_parser(prog), argv, prog)
    refuse_inside_job(os.environ)
    options = take(SiteStudyOptions, values)
    study, how = plan(command, options, take(SiteJobOptions, values), take(PlaceOptions, values))
    folder = (options.study or new_folder(command.target)).resolve()
    check_study(folder, study.to_json())
    for line in describe(study, how):
        print(line)
    hours = study.all_node_hours()
    if options.max_node_hours is not None and hours > options.max_node_hours:
        raise BadInput(
            f"the study must take at most {options.max_node_hours:g} node-hours; it may take {hours:g}; pass fewer"
            " nodes, a smaller --repeat or a shorter --time"
        )
    _check_jobs(study, folder, argv)
    if study.place.dry_run:
        return EXIT_DONE
    open_study(folder, study.to_json(), argv)
    submit_missing(study, folder, argv)
    print(f"study: {folder}")
    return EXIT_DONE


def plan(
    command: TrainCommand, options: SiteStudyOptions, job: SiteJobOptions, place: PlaceOptions
) -> Tuple[SiteStudy, str]:
    """Works a study out; also says how the site was chosen.

    Raises:
        BadInput: As `main`.
    """
    command = replace(command, launch=LaunchOptions())
    folder = config_dir(os.environ)
    config = read_config(folder)
    name, how = choose_site(place.site, config.site, os.environ, folder)
    profile = load_profile(name, folder)
    window = Window(options.untimed_steps, options.steps)
    check_window(window)
    points: List[PlannedPoint] = []
    jobs: Dict[str, JobOptions] = {}
    layouts: Dict[str, Layout] = {}
    for scaling in options.scaling:
        for words in job.of_points():
            layout = lay_out(profile, words, command.settings, place.launcher, config.partition)
            point = _point(scaling, layout)
            points.append(point)
            jobs[point.name], layouts[point.name] = words, layout
    check_growth(points)
    if options.controls:
        like = {p.num_ranks: p.name for p in points}
        for control in control_points(points, with_cached=True):
            points.append(control)
            jobs[control.name] = jobs[like[control.num_ranks]]
            layouts[control.name] = layouts[like[control.num_ranks]]
    for warning in check_batches(command, points):
        say(warning)
    traced = traced_point(points) if options.trace else None
    return (
        SiteStudy(
            command, place, profile, config, window, options.repeat, tuple(points), jobs, layouts, traced
        ),
        how,
    )


def describe(study: SiteStudy, how: str) -> List[str]:
    """Lists the points with what their jobs take at most."""
    lines = [
        f"study of {study.command.target} at {study.profile.name} ({how}):"
        f" {count(study.repeat * len(study.points), 'job')}, {study.repeat} of each point"
    ]
    for point in study.points:
        layout = study.layouts[point.name]
        price = cost(study.profile.site, layout)
        ranks = f"{count(layout.num_nodes, 'node')}, {count(layout.world_size, 'rank')}"
        if layout.replicas_per_process > 1:
            ranks += f" of {layout.replicas_per_process} replicas"
        if point.is_functional_only:
            ranks += " sharing cores: functional, not performance"
        hours = f"at most {study.node_hours(point.name):.3g} node-hours each"
        lines.append(f"  {point.name:<16} {ranks}, {hours}{f', {price}' if price else ''}")
    if study.traced is not None:
        hours = f"at most {study.node_hours(study.traced.name):.3g} node-hours"
        lines.append(f"  {TRACE:<16} of {study.traced.name}, {hours}")
    lines.append(f"  at most {study.all_node_hours():.4g} node-hours in all")
    if study.repeat < FEWEST_UNPAIRED:
        few = f"fewer than {FEWEST_UNPAIRED} jobs of each point"
        lines.append(f"  {few} give no interval: pass --repeat {FEWEST_UNPAIRED} or more")
    return lines


def submit_missing(study: SiteStudy, folder: Path, argv: Sequence[str]) -> None:
    """Hands over the jobs of the points that are neither measured nor on their way.

    A point whose job cannot be read is skipped, and said: it may be measured just now.

    Raises:
        BadInput: Slurm refuses a job; those before it are submitted.
        HpcdlError: A job that ran here failed.
    """
    with locked(folder / "submit.lock"):  # two that submit the same would remove each other's jobs
        states = _states(study, folder)
        _warn_of_balance(study, [point for _, point, at in study.order() if states[at] is None])
        for title, point, at in study.order():
            if states[at] is None:
                _submit(study, title, point, folder / at, argv)
            else:
                print(f"{title}: {states[at]}")


def _warn_of_balance(study: SiteStudy, points: Sequence[PlannedPoint]) -> None:
    """Warns where jobs of points may use more than their account has left."""
    # The words of all jobs name one.
    account = study.jobs[study.points[0].name].account or study.config.account
    if not points or not account or study.profile.site.scheduler == "none":
        return
    layouts = [study.layouts[point.name] for point in points]
    warning = balance_line(layouts, account, minutes_left(account), "what is missing of this study")
    if warning is not None:
        say(warning)


def _submit(study: SiteStudy, title: str, point: PlannedPoint, at: Path, argv: Sequence[str]) -> None:
    """Hands a job over, with the record of what it measures written before: nothing may be lost after."""
    job, tree = study.make_job(point, at, argv, os.environ)
    of_job = {
        "id": None,
        "folder": Path(job.folder).name,
        "site": job.site,
        "node_hours_at_most": study.node_hours(point.name),
    }
    card = {
        "schema_version": SCHEMA_VERSION,
        "point": point.name,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": None,
        "load": None,
        "job": of_job,
    }
    say(f"{title}: {'runs here' if job.executor == 'debug' else 'submitted'}")
    with _in_place_of(at, Path(job.folder)):
        write_json(at / "measurement.json", card)
        try:
            of_job["id"] = hand_over(job, tree, os.environ)
        except SystemExit as end:  # of a job that ran here
            raise HpcdlError(
                f"{title} {how_it_ended(end.code)}; its logs are in {job.log_dir}; the same command goes on"
            ) from end
    write_json(at / "measurement.json", card)
    if job.executor != "debug":
        print(f"{title}: job {of_job['id']}")


@contextlib.contextmanager
def _in_place_of(at: Path, of_job: Path) -> Iterator[None]:
    """Moves what an attempt left aside, for a job in its place; it comes back if that ends without the job's folder."""
    before, has_left = at.with_name(f"{at.name}.before"), at.exists()
    if has_left:
        shutil.rmtree(str(before), ignore_errors=True)
        at.rename(before)
    at.mkdir(parents=True)
    try:
        yield
    except BaseException:
        if not of_job.exists():
            shutil.rmtree(str(at), ignore_errors=True)
            if has_left:
                before.rename(at)
        raise


def _states(study: SiteStudy, folder: Path) -> Dict[Path, Optional[str]]:
    """Says what has become of each point; None: it is to be submitted, or again, since it has failed."""
    found: Dict[Path, Optional[str]] = {}
    jobs: Dict[Path, Submitted] = {}
    for _, _, at in study.order():
        found[at] = "done" if _is_done(folder / at) else None
        # What ran here keeps no handle, and is over: who runs it has the lock.
        if found[at] is None and study.profile.site.scheduler != "none":
            try:
                jobs.update((at, find_job(str(of_job), folder / at)) for of_job in _job_folders(folder / at))
            except (BadInput, OSError) as problem:
                unknown = "skipped, since it is not known whether its job runs"
                found[at] = f"{unknown}: {problem}; if it does not, remove {folder / at}"
    queue = ask_queue(list(jobs.values()))
    for at, job in jobs.items():
        state = state_of(job, queue)
        found[at] = None if state.is_over else f"{state.word}, job {job.job_id}"
    return found


def _job_folders(at: Path) -> List[Path]:
    """Lists the folders of jobs in that of a point: one, or none.

    Raises:
        OSError: Nobody may look.
    """
    names = sorted(os.listdir(at)) if at.exists() else []
    return [at / name for name in names if any(is_there(S_ISREG, at / name / of_job) for of_job in _OF_JOB)]


def _is_done(at: Path) -> bool:
    """Whether a point is measured."""
    try:
        status = read_json(at / "process-0" / "run.json").get("status")
    except (OSError, ValueError):
        return False  # it has not begun, or not ended
    return status == "done" and (at / "measurement.json").exists()


def _check_jobs(study: SiteStudy, folder: Path, argv: Sequence[str]) -> None:
    """Lets what one of the jobs is refused for be said before any is submitted."""
    kinds = {(point.name, point.kind): (point, at) for _, point, at in reversed(list(study.order()))}
    for point, at in kinds.values():
        study.make_job(point, folder / at, argv, os.environ)


def _point(scaling: str, layout: Layout) -> PlannedPoint:
    cores = layout.cores_per_process
    if cores is None:  # this machine
        cores = read_machine(os.environ).num_cores // layout.world_size
    busy = layout.replicas_per_process if layout.gpus_per_node == 0 else 1  # of a process' cores
    return PlannedPoint(
        f"{scaling}-{layout.world_size}",
        scaling,
        layout.world_size,
        layout.replicas_per_process,
        cores if busy <= cores else 0,
        scaling,
        layout.num_nodes,
    )
