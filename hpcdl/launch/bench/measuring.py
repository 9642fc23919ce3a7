"""One measurement: start processes side by side, wait, and keep what they and the machine said, in a folder.

```
measurement.json        what was started, when, and the foreign load of the whole launch; written last
env.txt                 where, and with what
process-0.log
process-0/              the run's folder of the first process: steps/rank-0000.jsonl, ..., run.json if it is hpcdl's
process-1/              of the second, where processes run side by side that know nothing of each other
```

Synopsis::

    point = Point("hpcdl-2", starts, num_processes=1, samples_per_step=256)
    measurement = measure(point, window, folder)            # a folder that is complete is only read
    measurement.samples_per_second, measurement.load.is_calm
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.checks import whole_number
from hpcdl.common.errors import EXIT_REQUEUE, HpcdlError
from hpcdl.common.load import Load, Span, read_busy, side_by_side, span
from hpcdl.common.provenance import environment_that_matters
from hpcdl.common.records import SCHEMA_VERSION as RUN_SCHEMA_VERSION
from hpcdl.common.records import check_schema, read_json, write_json
from hpcdl.common.step_times import RankSteps, read_step_times
from hpcdl.launch.machine import read_machine
from hpcdl.launch.processes import end_with_parent
from hpcdl.launch.records import OF_RUN, Checks, damaged, is_number, object_of, or_null
from hpcdl.launch.submission.state import read_state
from hpcdl.launch.surroundings import describe_environment

SCHEMA_VERSION = 1
#: How what still runs is ended, and how many seconds each signal is given. mpirun ends its ranks at SIGTERM. So does
#: `hpcdl train`, but gives them time to save; it kills them, who are in sessions of their own, at the second SIGINT.
_ENDINGS = ((signal.SIGTERM, 5.0), (signal.SIGINT, 1.0), (signal.SIGINT, 10.0), (signal.SIGKILL, 5.0))
#: Of measurement.json and of a job's state.json, what is computed with.
_OF_CARD: Checks = {"load": or_null(object_of(is_number)), "seconds": or_null(is_number)}
_OF_STATE: Checks = {"started": is_number, "ended": is_number, "image": or_null(object_of(lambda _: True))}
#: Begins the name of a process' folder.
_PROCESS = "process-"


@dataclass(frozen=True)
class Start:
    """A process to start: its words, what it gets beside this process's environment, and its cores."""

    argv: Tuple[str, ...]
    environ: Mapping[str, str]
    cpus: Optional[Tuple[int, ...]] = None


@dataclass(frozen=True)
class World:
    """The ranks that a process or its launcher starts, and the replicas of each."""

    num_ranks: int
    replicas_per_process: int


@dataclass(frozen=True)
class Point:
    """What is measured.

    Attributes:
        name: Also of its folders.
        starts: Gives the processes that run side by side, each of which writes into the folder at its place.
        num_processes: How many these are.
        samples_per_step: Of each process, by all of its ranks; None: its ``run.json`` says.
        world: Of each process, which its ``run.json`` must not contradict; None: any.
    """

    name: str
    starts: Callable[[Sequence[Path]], Sequence[Start]]
    num_processes: int
    samples_per_step: Optional[int] = None
    world: Optional[World] = None


@dataclass(frozen=True)
class Window:
    """The steps that count: those after the untimed ones, in which functions are compiled and caches filled."""

    untimed_steps: int
    timed_steps: int

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Window:
        """Reads what ``asdict`` gave.

        Raises:
            BadInput: A number is none.
            KeyError: One is missing.
        """
        untimed, timed = content["untimed_steps"], content["timed_steps"]
        return cls(whole_number("untimed_steps", untimed, least=0), whole_number("timed_steps", timed))

    @property
    def steps(self) -> int:
        """All steps that a run must take."""
        return self.untimed_steps + self.timed_steps

    def seconds(self, steps: RankSteps) -> float:
        """Gives how long a rank took for them.

        Raises:
            HpcdlError: It took fewer, or no time.
        """
        if steps.first_step != 0 or len(steps.step_seconds) < self.steps:
            raise HpcdlError(
                f"a measurement needs {self.steps} steps from the first on; rank {steps.rank} recorded"
                f" {len(steps.step_seconds)} from step {steps.first_step} on"
            )
        seconds = sum(steps.step_seconds[self.untimed_steps : self.steps])
        if not 0 < seconds < math.inf:
            raise HpcdlError(
                f"the steps of a measurement take time; rank {steps.rank} recorded {seconds} s for them"
            )
        return seconds

    def timed(self, measurement: Measurement) -> List[Sequence[float]]:
        """Gives the timed steps of each rank of a measurement's first process."""
        return [steps.step_seconds[self.untimed_steps : self.steps] for steps in measurement.ranks[0]]


class NotMeasured(HpcdlError):
    """A folder holds no measurement: it was not begun, or not ended."""


@dataclass(frozen=True)
class Measurement:
    """What came out.

    Attributes:
        samples_per_second: Of all processes together; of each the slowest rank counts.
        step_seconds: Mean over the window, of the slowest rank of all.
        load: What else ran in the steps that count, on the node where that was most; of processes that do not tell, in
            the whole launch. None: nobody looked.
        seconds: How long all of it took, with the start.
        ranks: The steps of all ranks, of each process.
        runs: The ``run.json`` of each process; {} where there is none.
        card: What ``measurement.json`` says.
        problems: Lines of the step files that could not be read, and were not needed.
    """

    samples_per_second: float
    step_seconds: float
    load: Optional[Load]
    seconds: float
    ranks: Tuple[Tuple[RankSteps, ...], ...]
    runs: Tuple[Mapping[str, Any], ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    problems: Tuple[str, ...] = ()

    @property
    def is_calm(self) -> bool:
        """Whether nothing else is known to have run."""
        return self.load is None or self.load.is_calm


def measure(point: Point, window: Window, folder: Path, timeout_s: float = 600.0) -> Measurement:
    """Measures a point, unless its folder says that this was done.

    Raises:
        HpcdlError: A process failed or hung.
    """
    if not (folder / "measurement.json").exists():
        _run(point, folder, timeout_s)
    return read_measurement(point, window, folder)


def read_measurement(point: Point, window: Window, folder: Union[Path, str]) -> Measurement:
    """Reads what `measure` left; a report reads tens of thousands of these, so that names of files are no Paths here.

    Raises:
        BadInput: A later hpcdl wrote it.
        NotMeasured: Nothing is there yet.
        HpcdlError: The folder does not hold it, or damaged lines took what is needed.
    """
    folder = str(folder)
    path = folder + "/measurement.json"
    try:
        card = read_json(path)
        check_schema(card, SCHEMA_VERSION, path)
        _refuse(damaged(card, _OF_CARD))
        of_launch = None if card["load"] is None else _read_load(card["load"])
        if card.get("job") is not None:
            card = _of_job(card, Path(folder))
        seconds = float(card["seconds"] or 0.0)
    except FileNotFoundError as problem:
        raise NotMeasured(f"{folder} holds no measurement") from problem
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise HpcdlError(f"{folder} holds no measurement that can be read: {problem}; remove it") from problem
    slowest, samples, ranks, runs, clocks, problems = [], [], [], [], [], []
    for i in range(point.num_processes):
        place = f"{folder}/{_PROCESS}{i}"
        steps, seconds_of_slowest, run, of_place = _read_process(place, window)
        if point.world is not None:
            _check_run(place, run, point.world)
        slowest.append(seconds_of_slowest)
        samples.append(point.samples_per_step or _batch_size(place, run, "global"))
        ranks.append(steps)
        runs.append(run)
        clocks.append(_clocks(place, run))
        problems += of_place
    load = _load_of(clocks) or of_launch
    rate = sum(window.timed_steps * n / of_slowest for n, of_slowest in zip(samples, slowest))
    step_seconds = max(slowest) / window.timed_steps
    return Measurement(rate, step_seconds, load, seconds, tuple(ranks), tuple(runs), card, tuple(problems))


def _read_load(content: Mapping[str, Any]) -> Load:
    return Load(float(content["cores"]), float(content["stolen"]), int(content["num_cores"]))


def _load_of(clocks: Sequence[Mapping[str, Span]]) -> Optional[Load]:
    """Gives the foreign load that runs side by side have seen; None if one of them did not look."""
    if not all(clocks):
        return None
    of_nodes: Dict[str, List[Span]] = {}
    for of_run in clocks:
        for hostname, seen in of_run.items():
            of_nodes.setdefault(hostname, []).append(seen)
    loads = [side_by_side(spans).load for spans in of_nodes.values()]
    return max(loads, key=lambda load: load.cores)


def _clocks(place: str, run: Mapping[str, Any]) -> Dict[str, Span]:
    """Reads what a run has seen of its nodes' clocks; {} if it did not look."""
    try:
        return {
            hostname: Span(
                float(seen["seconds"]),
                float(seen["machine"]),
                float(seen["stolen"]),
                float(seen["own"]),
                int(seen["num_cores"]),
            )
            for hostname, seen in run.get("clocks", {}).items()
        }
    except (ValueError, KeyError, TypeError) as problem:
        raise HpcdlError(f"{place}/run.json cannot be read: clocks: {problem}") from problem


def _of_job(card: Dict[str, Any], folder: Path) -> Dict[str, Any]:
    """Adds what the keeper of a job says of its end.

    Raises:
        HpcdlError: The run is not done.
    """
    job = card["job"]
    state = read_state(folder / job["folder"])
    _refuse(damaged(state, _OF_STATE))
    try:
        status = read_json(folder / "process-0" / "run.json").get("status")
    except (OSError, ValueError):
        status = None
    if status != "done":
        how = state.get("words") or state.get("state") or "not begun"
        raise HpcdlError(f"{folder}: job {job['id'] or job['folder']} has not measured it: {how}")
    seconds = state["ended"] - state["started"] if "ended" in state else None
    return {**card, "seconds": seconds, "job": {**job, "image": state.get("image")}}


def _read_process(
    place: str, window: Window
) -> Tuple[Tuple[RankSteps, ...], float, Mapping[str, Any], List[str]]:
    """Reads the steps of a process' ranks, how long the slowest took, its record, and what could not be read."""
    try:
        found = read_step_times(place)
    except OSError as problem:
        raise HpcdlError(f"{place}/steps cannot be read: {problem}") from problem
    problems = [f"{place}/{problem}" for problem in found.problems]
    run = _read_run(f"{place}/run.json")
    world_size = run.get("topology", {}).get("world_size", len(found.ranks) or 1)
    try:
        if len(found.ranks) != world_size or not found.ranks:
            raise HpcdlError(f"{len(found.ranks)} of {world_size} ranks recorded their steps")
        slowest = max(window.seconds(steps) for steps in found.ranks.values())
    except HpcdlError as lacking:
        raise HpcdlError("; ".join([f"{place}: {lacking}", *problems])) from lacking
    return tuple(found.ranks.values()), slowest, run, problems


def _read_run(path: str) -> Mapping[str, Any]:
    """Reads a run's record; {} where there is none."""
    try:
        run = read_json(path)
        check_schema(run, RUN_SCHEMA_VERSION, path)
        _refuse(damaged(run, OF_RUN))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise HpcdlError(f"{path} cannot be read: {problem}") from problem
    return run


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be read")


def _check_run(place: str, run: Mapping[str, Any], planned: World) -> None:
    """Refuses a run in another world than the plan's: its throughput would stand beside a wrong number of replicas."""
    _batch_size(place, run, "per_replica")
    found = World(
        run.get("topology", {}).get("world_size", planned.num_ranks),
        run["config"].get("replicas_per_process", planned.replicas_per_process),
    )
    if found != planned:
        raise HpcdlError(
            f"{place} must be of {planned.num_ranks} rank(s) x {planned.replicas_per_process} replica(s), as planned;"
            f" its run.json says {found.num_ranks} x {found.replicas_per_process}"
        )


def _batch_size(place: str, run: Mapping[str, Any], whose: str) -> int:
    try:
        return int(run["config"][f"{whose}_batch_size"])
    except (ValueError, KeyError, TypeError) as problem:
        raise HpcdlError(f"{place}/run.json names no {whose}_batch_size: {problem}") from problem


def places(point: Point, folder: Path) -> List[Path]:
    """Names the folders of a point's processes."""
    return [folder / f"{_PROCESS}{i}" for i in range(point.num_processes)]


def _run(point: Point, folder: Path, timeout_s: float) -> None:
    shutil.rmtree(str(folder), ignore_errors=True)  # what an attempt that was broken off left
    folder.mkdir(parents=True)
    of_processes = places(point, folder)
    starts = list(point.starts(of_processes))
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    before = read_busy()
    statuses = _wait([_popen(start, place) for start, place in zip(starts, of_processes)], timeout_s)
    after = read_busy()
    for place, status in zip(of_processes, statuses):
        if status != 0:
            log = place.with_suffix(".log")
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            too_long = f"did not end within {timeout_s:g} s (hpcdl bench --timeout-min allows more)"
            how = too_long if status is None else how_it_ended(status)
            raise HpcdlError(f"{point.name} {how}; {log} ends with: {' | '.join(lines)}")
    record: Dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "point": point.name,
        "started": started,
        "seconds": after.wall - before.wall,
        "load": asdict(span(before, after).load),
        "processes": [
            {**asdict(start), "environ": environment_that_matters(start.environ)} for start in starts
        ],
    }
    environ = {**os.environ, **starts[0].environ}
    text = describe_environment(read_machine(environ), environ)
    (folder / "env.txt").write_text(text, encoding="utf-8")
    write_json(folder / "measurement.json", record)


def how_it_ended(status: Any) -> str:
    """Says how a launch ended that has measured nothing; a training that is asked to stop ends with status 85."""
    stopped = "was stopped before its steps were timed"
    return stopped if status == EXIT_REQUEUE else f"ended with status {status}"


def _popen(start: Start, place: Path) -> subprocess.Popen[bytes]:
    ends_with_parent = end_with_parent()

    def prepare() -> None:
        ends_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background job has inherited ignored
        if start.cpus is not None:
            os.sched_setaffinity(0, start.cpus)

    with open(str(place.with_suffix(".log")), "wb") as log:
        return subprocess.Popen(
            list(start.argv),
            env={**os.environ, **start.environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,
        )


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> List[Optional[int]]:
    """Gives the exit statuses; None of a process that had to be ended."""
    end = time.monotonic() + timeout_s
    statuses: List[Optional[int]] = []
    try:
        for process in processes:
            try:
                statuses.append(process.wait(max(0.0, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                statuses.append(None)
    finally:
        _end(processes)
    return statuses


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends the processes that still run, and what they have started: politely first."""
    for number, patience_s in _ENDINGS:
        running = [process for process in processes if process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        end = time.monotonic() + patience_s
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
