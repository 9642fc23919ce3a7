"""A study of one machine, worked out before it begins: which points, on which cores, started how. Pure functions.

* ``weak``: the batch of a replica is fixed, so that the global batch grows with the ranks.
* ``strong``: the global batch is fixed, that of the largest number of ranks in weak scaling.
* ``control``: the same ranks without the exchange between them.
* ``cached``: besides, with the same batch from memory again and again: what is left is computing.
* ``ceiling``: of weak scaling, as many processes that know nothing of each other, side by side: what the machine has.

Every rank has the same number of cores, and of GPUs, at every point, those that the largest point leaves to it and its
replicas: otherwise one rank would compute with all of them, and a study of a single machine could show nothing.

Synopsis::

    plan = plan_study(command, StudyOptions(np=(1, 2)), machine, python=sys.executable, environ={})
    for planned in plan.points:
        planned.name, planned.kind, planned.num_ranks           # "weak-2", "weak", 2
        point = plan.make_point(planned)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.bench import BenchSettings
from hpcdl.common.checks import one_of, whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology, choose_strategy
from hpcdl.common.words import LaunchOptions, TrainCommand, train_argv, train_words
from hpcdl.launch.bench.measuring import Point, Start, Window, World
from hpcdl.launch.bench.words import MOST_REPLICAS, SCALINGS, StudyOptions
from hpcdl.launch.machine import Machine
from hpcdl.launch.placement import place as place_ranks

#: The folder of a trace in that of its study.
TRACE = "trace"
#: Steps of a trace; more make files that no viewer opens.
TRACED_STEPS = 10


@dataclass(frozen=True)
class PlannedPoint:
    """A point of a study.

    Attributes:
        name: Also of its folders.
        kind: ``weak``, ``strong``, ``control``, ``cached``, ``ceiling`` or ``trace``.
        num_ranks: Processes; of a ceiling those that run side by side.
        replicas_per_process: Of each.
        cores_per_rank: That each rank has to itself; 0 where ranks share cores or GPUs.
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

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PlannedPoint:
        """Reads what ``asdict`` gave; a study that was made before points said their scaling has it in their kind.

        Raises:
            BadInput: A number or a name is none.
            KeyError: One is missing.
        """
        kind = str(content["kind"])
        scaling = content.get("scaling", "strong" if kind == "strong" else "weak")
        return cls(
            str(content["name"]),
            kind,
            whole_number("num_ranks", content["num_ranks"], most=MOST_REPLICAS),
            whole_number("replicas_per_process", content["replicas_per_process"], most=MOST_REPLICAS),
            whole_number("cores_per_rank", content["cores_per_rank"], least=0),
            one_of("scaling", scaling, SCALINGS),
            whole_number("num_nodes", content.get("num_nodes", 1)),
        )

    @property
    def num_replicas(self) -> int:
        """In all processes."""
        return self.num_ranks * self.replicas_per_process

    @property
    def is_functional_only(self) -> bool:
        """Whether more are busy than there are cores or GPUs: it works, but its speed says nothing."""
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
        gpus: The GPUs, in the words of ``CUDA_VISIBLE_DEVICES``; () where there are none.
        python: Runs hpcdl.
        environ: What the runs get besides.
    """

    command: TrainCommand
    window: Window
    rounds: int
    points: Tuple[PlannedPoint, ...]
    cpus: Tuple[Tuple[int, ...], ...]
    gpus: Tuple[str, ...]
    python: str
    environ: Mapping[str, str]

    def make_point(self, planned: PlannedPoint) -> Point:
        """Gives what is to be measured for a point."""
        if planned.kind == "ceiling":
            return as_point(planned, lambda p: self._independent(planned, p))
        return as_point(planned, lambda p: [self._ranks(planned, p[0])])

    def to_json(self) -> Dict[str, Any]:
        """Gives what the study's record keeps."""
        return {
            "target": self.command.target,
            "command": train_words(self.command),
            "window": asdict(self.window),
            "rounds": self.rounds,
            "points": [asdict(p) for p in self.points],
        }

    def _ranks(self, planned: PlannedPoint, place: Path) -> Start:
        settings = bench_settings(planned, self.window, most_replicas(self.points))
        num_cores = planned.num_ranks * planned.cores_per_rank
        return self._train(planned, planned.num_ranks, place, settings, range(num_cores or len(self.cpus)))

    def _independent(self, planned: PlannedPoint, places: Sequence[Path]) -> List[Start]:
        settings = BenchSettings(
            steps=self.window.steps,
            untimed_steps=self.window.untimed_steps,
            meet_dir=str(places[0].with_name("meeting")),
            meet_count=planned.num_ranks,
            weak=True,
        )
        each = planned.cores_per_rank
        starts = []
        for i, place in enumerate(places):
            cores = range(i * each, (i + 1) * each) if each else range(len(self.cpus))
            start = self._train(planned, 1, place, settings, cores)
            starts.append(replace(start, environ={**start.environ, **self._own_gpus(planned, i)}))
        return starts

    def _own_gpus(self, planned: PlannedPoint, index: int) -> Dict[str, str]:
        """Shows an independent process its own GPUs: it would take the first ones, as they all would."""
        if not self.gpus:
            return {}
        first = index * planned.replicas_per_process
        mine = range(first, first + planned.replicas_per_process)
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[i % len(self.gpus)] for i in mine)}

    def _train(
        self, planned: PlannedPoint, np: int, place: Path, settings: BenchSettings, cores: Sequence[int]
    ) -> Start:
        # Left to itself a process takes all GPUs of the machine, or an equal part of them.
        run = replace(
            self.command.settings,
            run_dir=str(place),
            strategy=_strategy(self.command, np),
            replicas_per_process=planned.replicas_per_process,
        )
        if np == 1:
            run = replace(run, controller=None)
        logs = str(place.with_name(f"{place.name}-logs")) if np > 1 else None
        launch = replace(self.command.launch, np=np, log_dir=logs)
        words = train_argv(replace(self.command, settings=run, launch=launch))
        return Start(
            (self.python, "-m", "hpcdl", "train", *words),
            {**self.environ, **settings.to_environ()},
            tuple(cpu for core in cores for cpu in self.cpus[core]),
        )


def as_point(
    planned: PlannedPoint, starts: Callable[[Sequence[Path]], Sequence[Start]] = lambda _: ()
) -> Point:
    """Gives what is measured for a planned point; without ``starts`` it can only be read."""
    count, ranks = (planned.num_ranks, 1) if planned.kind == "ceiling" else (1, planned.num_ranks)
    return Point(planned.name, starts, count, world=World(ranks, planned.replicas_per_process))


def _strategy(command: TrainCommand, np: int) -> str:
    return "auto" if np == 1 else command.settings.strategy


def bench_settings(planned: PlannedPoint, window: Window, most_replicas: int) -> BenchSettings:
    """Gives what the runs of a point are told; ``most_replicas`` is the number at the largest point."""
    return BenchSettings(
        steps=window.untimed_steps + TRACED_STEPS if planned.kind == "trace" else window.steps,
        untimed_steps=window.untimed_steps,
        without_exchange=planned.kind in ("control", "cached") and planned.num_ranks > 1,
        cached_input=planned.kind == "cached",
        batch_of_replicas=most_replicas if planned.scaling == "strong" else None,
        weak=planned.scaling == "weak",
        trace=planned.kind == "trace",
    )


def most_replicas(points: Sequence[PlannedPoint]) -> int:
    """Gives the number of replicas at the largest point."""
    return max(p.num_replicas for p in points)


def check_growth(points: Sequence[PlannedPoint]) -> None:
    """Refuses points of one scaling that have the same number of replicas: no curve goes through them.

    Raises:
        BadInput: Some have, since more ranks have fewer replicas each.
    """
    for scaling in SCALINGS:
        mine = [point for point in points if point.scaling == scaling]
        if len({point.num_replicas for point in mine}) < len(mine):
            received = ", ".join(f"{point.num_replicas} of {point.name}" for point in mine)
            raise BadInput(
                f"{scaling} scaling needs points of different numbers of replicas; received {received}; name other"
                " points, or pass e.g. --replicas-per-process 1"
            )


def traced_point(points: Sequence[PlannedPoint]) -> PlannedPoint:
    """Gives the point to trace: the largest."""
    return replace(
        max(points, key=lambda p: (p.kind in SCALINGS, p.kind == "weak", p.num_ranks)), kind="trace"
    )


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
    gpus: Sequence[str] = (),
) -> StudyPlan:
    """Works out a study.

    Args:
        command: What is trained; its ``launch`` says nothing of ranks.
        options: Of the study.
        machine: Where it runs.
        python: Runs hpcdl.
        environ: What the runs get besides.
        gpus: Of the machine, by name.

    Raises:
        BadInput: A point is larger than the machine, its strategy does not fit, or too few steps are left out.
    """
    replicas = command.settings.replicas_per_process or 1
    for np in options.np:
        _check_fit(command, np, replicas, machine)
    place_ranks(machine, options.np[-1], replicas, options.oversubscribe)
    busy = replicas if machine.num_gpus == 0 else 1  # of a rank's cores
    cores_per_rank = max(busy, machine.num_cores // options.np[-1])

    def planned(kind: str, np: int) -> PlannedPoint:
        shares_gpus = 0 < machine.num_gpus < np * replicas
        fits = np * cores_per_rank <= machine.num_cores and not shares_gpus
        scaling = "strong" if kind == "strong" else "weak"
        return PlannedPoint(f"{kind}-{np}", kind, np, replicas, cores_per_rank if fits else 0, scaling)

    points = [planned(scaling, np) for scaling in options.scaling for np in options.np]
    points += control_points(points, with_cached=not options.quick)
    if "weak" in options.scaling:
        points += [planned("ceiling", np) for np in options.np if np > 1]
    launch = LaunchOptions(launcher=command.launch.launcher, oversubscribe=options.oversubscribe)
    return StudyPlan(
        replace(command, launch=launch),
        options.window,
        1 if options.quick else options.rounds,
        tuple(points),
        machine.cores[: machine.num_cores],
        tuple(gpus),
        python,
        environ,
    )


def _check_fit(command: TrainCommand, np: int, replicas: int, machine: Machine) -> None:
    """Lets the rules of the ranks refuse a strategy before any is started."""
    world = Topology(0, np, 0, np, 0, 1, machine.hostname, "none" if np == 1 else "hpcdl")
    kind = "GPU" if machine.num_gpus else "CPU"
    choose_strategy(_strategy(command, np), replicas, world, machine.num_gpus, kind)


_WHAT = {
    "ceiling": "independent processes",
    "control": "ranks without the exchange",
    "cached": "ranks without the exchange, data from memory",
}


def describe(plan: StudyPlan, seconds_each: float) -> str:
    """Writes the points, and how long the study takes if each launch takes as long as is guessed."""
    rows = [f"study of {plan.command.target}: {plan.rounds} round(s) of {len(plan.points)} points"]
    for p in plan.points:
        shared = "cores or GPUs" if plan.gpus else "cores"
        cores = f"sharing {shared}" if p.cores_per_rank == 0 else f"{p.cores_per_rank} core(s) each"
        if plan.gpus and p.cores_per_rank:
            cores += f", {p.replicas_per_process} GPU(s) each"
        label = "  functional, not performance" if p.is_functional_only else ""
        what = _WHAT.get(p.kind, "ranks").replace("ranks", "rank" if p.num_ranks == 1 else "ranks")
        if p.replicas_per_process > 1:
            what += f" of {p.replicas_per_process} replicas"
        rows.append(f"  {p.name:<16} {p.num_ranks} {what}, {cores}{label}")
    minutes = seconds_each * plan.rounds * len(plan.points) / 60
    rows.append(
        f"  about {max(1, round(minutes))} min by a first guess of {seconds_each:g} s for a launch of"
        f" {plan.window.steps} steps; the first launch says more"
    )
    return "\n".join(rows)
