"""A study of one machine, worked out before it begins: which points, on which cores, started how. Pure functions.

* ``weak``: the batch of a replica is fixed, so that the global batch grows with the ranks.
* ``strong``: the global batch is fixed, that of the largest number of ranks in weak scaling.
* ``control``: the same ranks without the exchange between them.
* ``cached``: besides, with the same batch from memory again and again: what is left is computing.
* ``ceiling``: as many processes that know nothing of each other, at the same time: the most that the machine has.

Every rank has the same number of cores at every point, those that the largest point leaves to it: otherwise one rank
would compute with all of them, and a study of a single machine could show nothing.

Synopsis::

    plan = plan_study(command, StudyOptions(np=(1, 2)), machine, python=sys.executable, environ={})
    for planned in plan.points:
        planned.name, planned.kind, planned.num_ranks           # "weak-2", "weak", 2
        point = plan.make_point(planned)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.bench import BenchSettings
from hpcdl.common.checks import one_of, parse_whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.options import at_least, option, switch
from hpcdl.common.words import LaunchOptions, TrainCommand, train_argv
from hpcdl.launch.bench.measuring import Point, Start, Window
from hpcdl.launch.machine import Machine

SCALINGS = ("weak", "strong")
FEWEST_UNTIMED = 10
_QUICK_STEPS = 30
#: Steps of a trace; more make files that no viewer opens.
TRACED_STEPS = 10


def counts(what: str, text: str) -> Tuple[int, ...]:
    """Reads different whole numbers, joined by commas; gives them in order."""
    return tuple(sorted({parse_whole_number(what, part) for part in text.split(",")}))


def scalings(what: str, text: str) -> Tuple[str, ...]:
    """Reads kinds of scaling, joined by commas."""
    return tuple(one_of(what, part, SCALINGS) for part in text.split(","))


def scaling_option() -> Any:
    """Makes the option that all kinds of studies have for the scaling."""
    return option(
        ("weak",),
        "LIST",
        "scale weakly (fixed batch per replica), strongly (fixed global batch), or both",
        scalings,
    )


def untimed_option() -> Any:
    """Makes the option for the steps that do not count."""
    return option(
        15, "N", "leave out the first N steps (default: 15; at least 10, and 10 % of all)", at_least(0)
    )


def study_option() -> Any:
    """Makes the option for the study's folder."""
    return option(None, "DIR", "keep the records in DIR, and go on with what is there", _path)


def _path(what: str, text: str) -> Path:
    return Path(text)


@dataclass(frozen=True)
class StudyOptions:
    """What a study measures, and how long."""

    np: Tuple[int, ...] = option(
        (1, 2), "LIST", "measure these numbers of ranks (default: 1,2)", counts, "-n"
    )
    scaling: Tuple[str, ...] = scaling_option()
    rounds: int = option(9, "N", "measure all points in N rounds (default: 9)", at_least(1))
    steps: int = option(80, "N", "time N steps of each launch (default: 80)", at_least(1))
    untimed_steps: int = untimed_option()
    quick: bool = switch(f"measure one round of {_QUICK_STEPS} steps, not the input's part: no intervals")
    trace: bool = switch("besides, trace the largest point: Horovod's timeline and TensorFlow's profiler")
    study: Optional[Path] = study_option()
    lock: Optional[Path] = option(
        None, "FILE", "lock FILE during each round, where others measure too", _path
    )
    oversubscribe: bool = switch("allow more ranks than cores")
    dry_run: bool = switch("print the points and how long they take; measure nothing")

    @property
    def window(self) -> Window:
        """The steps that count.

        Raises:
            BadInput: Too few are left out.
        """
        timed = min(self.steps, _QUICK_STEPS) if self.quick else self.steps
        window = Window(self.untimed_steps, timed)
        check_window(window)
        return window


def check_window(window: Window) -> None:
    """Refuses to time the steps in which functions are compiled.

    Raises:
        BadInput: Too few are left out.
    """
    least = max(FEWEST_UNTIMED, -(-window.timed_steps // 9))  # a tenth of all steps
    if window.untimed_steps < least:
        raise BadInput(
            f"at least {FEWEST_UNTIMED} steps and 10 % of all must be left out, in which functions are compiled and"
            f" caches filled; received untimed_steps={window.untimed_steps} of {window.steps};"
            f" pass --untimed-steps {least} or more"
        )


@dataclass(frozen=True)
class PlannedPoint:
    """A point of a study.

    Attributes:
        name: Also of its folders.
        kind: ``weak``, ``strong``, ``control``, ``cached``, ``ceiling`` or ``trace``.
        num_ranks: Processes; of a ceiling those that run side by side.
        replicas_per_process: Of each.
        cores_per_rank: That each rank has to itself; 0 where ranks share cores.
        scaling: ``weak`` or ``strong``: which batches it takes.
        num_nodes: Of its ranks.
    """

    name: str
    kind: str
    num_ranks: int
    replicas_per_process: int
    cores_per_rank: int
    scaling: str = "weak"
    num_nodes: int = 1

    @property
    def is_functional_only(self) -> bool:
        """Whether more threads are busy than there are cores: it works, but its speed says nothing."""
        return self.cores_per_rank == 0


@dataclass(frozen=True)
class StudyPlan:
    """A study.

    Attributes:
        command: What is trained, in the words of ``hpcdl train``.
        window: The steps that count.
        rounds: How often each point is measured.
        points: Of a round.
        cpus: The logical CPUs of the cores that are used, core by core.
        python: Runs hpcdl.
        environ: What the runs get besides.
    """

    command: TrainCommand
    window: Window
    rounds: int
    points: Tuple[PlannedPoint, ...]
    cpus: Tuple[Tuple[int, ...], ...]
    python: str
    environ: Mapping[str, str]

    def make_point(self, planned: PlannedPoint) -> Point:
        """Gives what is to be measured for a point."""
        if planned.kind == "ceiling":
            return Point(planned.name, lambda p: self._independent(planned, p), planned.num_ranks)
        return Point(planned.name, lambda p: [self._ranks(planned, p[0])], 1)

    def to_json(self) -> Dict[str, Any]:
        """Gives what the study's record keeps."""
        return {
            "target": self.command.target,
            "command": train_argv(self.command),
            "window": asdict(self.window),
            "rounds": self.rounds,
            "points": [asdict(p) for p in self.points],
        }

    def _ranks(self, planned: PlannedPoint, place: Path) -> Start:
        settings = bench_settings(planned, self.window, most_replicas(self.points))
        num_cores = planned.num_ranks * planned.cores_per_rank
        return self._train(planned.num_ranks, place, settings, range(num_cores or len(self.cpus)))

    def _independent(self, planned: PlannedPoint, places: Sequence[Path]) -> List[Start]:
        settings = BenchSettings(
            steps=self.window.steps,
            meet_dir=str(places[0].with_name("meeting")),
            meet_count=planned.num_ranks,
        )
        each = planned.cores_per_rank
        return [
            self._train(
                1, place, settings, range(i * each, (i + 1) * each) if each else range(len(self.cpus))
            )
            for i, place in enumerate(places)
        ]

    def _train(self, np: int, place: Path, settings: BenchSettings, cores: Sequence[int]) -> Start:
        run = replace(self.command.settings, run_dir=str(place))
        if np == 1:
            run = replace(run, controller=None, strategy="auto")
        logs = str(place.with_name(f"{place.name}-logs")) if np > 1 else None
        launch = replace(self.command.launch, np=np, log_dir=logs)
        words = train_argv(replace(self.command, settings=run, launch=launch))
        return Start(
            (self.python, "-m", "hpcdl", "train", *words),
            {**self.environ, **settings.to_environ()},
            tuple(cpu for core in cores for cpu in self.cpus[core]),
        )


def bench_settings(planned: PlannedPoint, window: Window, most_replicas: int) -> BenchSettings:
    """Gives what the runs of a point are told; ``most_replicas`` is the number at the largest point."""
    return BenchSettings(
        steps=window.untimed_steps + TRACED_STEPS if planned.kind == "trace" else window.steps,
        without_exchange=planned.kind in ("control", "cached") and planned.num_ranks > 1,
        cached_input=planned.kind == "cached",
        batch_of_replicas=most_replicas if planned.scaling == "strong" else None,
        trace_from=window.untimed_steps if planned.kind == "trace" else None,
    )


def most_replicas(points: Sequence[PlannedPoint]) -> int:
    """Gives the number of replicas at the largest point."""
    return max(p.num_ranks * p.replicas_per_process for p in points)


def control_points(points: Sequence[PlannedPoint], with_cached: bool) -> List[PlannedPoint]:
    """Lists the points that tell the parts of a step apart.

    The largest strong point takes the batches of the largest weak one, and shares its controls.
    """
    scalings = {p.scaling for p in points}
    largest = max(p.num_ranks for p in points)
    made = []
    for p in points:
        if p.scaling == "strong" and p.num_ranks == largest and "weak" in scalings:
            continue
        kinds = [*(["control"] if p.num_ranks > 1 else []), *(["cached"] if with_cached else [])]
        made += [replace(p, name=control_name(kind, p.scaling, p.num_ranks), kind=kind) for kind in kinds]
    return made


def control_name(kind: str, scaling: str, num_ranks: int) -> str:
    """Names a control point."""
    return f"{kind}-{num_ranks}" if scaling == "weak" else f"strong-{kind}-{num_ranks}"


def plan_study(
    command: TrainCommand,
    options: StudyOptions,
    machine: Machine,
    python: str,
    environ: Mapping[str, str],
) -> StudyPlan:
    """Works out a study.

    Args:
        command: What is trained; its ``launch`` says nothing of ranks.
        options: Of the study.
        machine: Where it runs.
        python: Runs hpcdl.
        environ: What the runs get besides.

    Raises:
        BadInput: A point is larger than the machine, or too few steps are left out.
    """
    replicas = command.settings.replicas_per_process or 1
    most = options.np[-1]
    if most * replicas > machine.num_cores and not options.oversubscribe:
        raise BadInput(
            f"every replica of a point needs a core; received np={most} x {replicas} replicas on {machine.hostname}"
            f" with {machine.num_cores} cores; measure fewer, or pass --oversubscribe: such points are functional,"
            " not performance"
        )
    cores_per_rank = max(replicas, machine.num_cores // most)

    def planned(kind: str, np: int) -> PlannedPoint:
        fits = np * cores_per_rank <= machine.num_cores
        scaling = "strong" if kind == "strong" else "weak"
        return PlannedPoint(f"{kind}-{np}", kind, np, replicas, cores_per_rank if fits else 0, scaling)

    points = [planned(scaling, np) for scaling in options.scaling for np in options.np]
    points += control_points(points, with_cached=not options.quick)
    points += [planned("ceiling", np) for np in options.np if np > 1]
    launch = LaunchOptions(launcher=command.launch.launcher, oversubscribe=options.oversubscribe)
    return StudyPlan(
        replace(command, launch=launch),
        options.window,
        1 if options.quick else options.rounds,
        tuple(points),
        machine.cores[: machine.num_cores],
        python,
        environ,
    )


_WHAT = {
    "ceiling": "independent processes",
    "control": "ranks without the exchange",
    "cached": "ranks without the exchange, data from memory",
}


def describe(plan: StudyPlan, seconds_each: float) -> str:
    """Writes the points, and how long the study takes if a measurement takes so long."""
    rows = [f"study of {plan.command.target}: {plan.rounds} round(s) of {len(plan.points)} points"]
    for p in plan.points:
        cores = "sharing cores" if p.cores_per_rank == 0 else f"{p.cores_per_rank} core(s) each"
        label = "  functional, not performance" if p.is_functional_only else ""
        what = _WHAT.get(p.kind, "ranks")
        rows.append(f"  {p.name:<16} {p.num_ranks} {what}, {cores}{label}")
    minutes = seconds_each * plan.rounds * len(plan.points) / 60
    rows.append(f"  about {max(1, round(minutes))} min, each launch {plan.window.steps} steps")
    return "\n".join(rows)
