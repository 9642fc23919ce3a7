"""How fast is hpcdl on this machine, against plain Keras, Horovod and PyTorch scripts by hand and the machine's limit.

All points train the same network on the same data with 128 samples per process and step, each in launches of its own,
interleaved in rounds (`hpcdl.launch.bench.rounds`). A study that was broken off goes on; one that is complete is only
read. The goals are those that hpcdl was built to.

Synopsis::

    python tools/speed.py --json speed.json            # 9 calm rounds of 8 points: 35 minutes on 2 cores
    python tools/speed.py --quick                      # 1 round: no intervals
    python tools/speed.py --points plain-1,hpcdl-1     # only these, and the ratios between them
    python tools/speed.py --torch-python /envs/torch/bin/python      # and 4 points of PyTorch, from that environment
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.bench import BenchSettings  # noqa: E402
from hpcdl.common.errors import EXIT_DONE, BadInput  # noqa: E402
from hpcdl.common.load import wait_until_calm  # noqa: E402
from hpcdl.common.records import read_json, write_json  # noqa: E402
from hpcdl.launch.bench import allreduce  # noqa: E402
from hpcdl.launch.bench.causes import split  # noqa: E402
from hpcdl.launch.bench.measuring import Point, Start, Window  # noqa: E402
from hpcdl.launch.bench.ratios import Estimate, estimate, ratio  # noqa: E402
from hpcdl.launch.bench.rounds import Chosen, Effort, choose, locked, run_rounds  # noqa: E402
from hpcdl.launch.bench.software import distinct  # noqa: E402
from hpcdl.launch.machine import Machine, read_machine  # noqa: E402
from hpcdl.launch.mpirun import find_mpirun, read_version  # noqa: E402
from hpcdl.launch.placement import place  # noqa: E402
from hpcdl.launch.surroundings import processor  # noqa: E402
from tools.environments import guarded  # noqa: E402

WORKLOAD = "fashion_mnist/cnn_dropout"
NUM_PARAMETERS = 1_199_882  # of that workload; the exchange sums as many floats
GUARD_EVERY = 100  # steps, of `Run.fit`
BATCH_SIZE = 128
MOST_MEMORY = 1.05  # of a rank, by that of the Horovod script
NUM_RANKS = 2
_PROGRAMS = ROOT / "tools" / "programs"


@dataclass(frozen=True)
class Comparison:
    """A ratio of samples/s of two points, and what it should be."""

    numerator: str
    denominator: str
    goal: Optional[float]
    aim: Optional[float]
    says: str


COMPARISONS = (
    Comparison("hpcdl-1", "plain-1", 1.00, 1.05, "run.fit / model.fit, one process"),
    Comparison("hpcdl-2", "script-2", 1.45, None, "2 ranks / Horovod script as documented"),
    Comparison("hpcdl-2", "cured-2", 1.00, None, "2 ranks / the same script, bound and yielding"),
    Comparison("hpcdl-2", "independent-2", 0.93, 0.97, "2 ranks / 2 independent processes"),
    Comparison("hpcdl-2", "control-2", None, None, "2 ranks / without exchange"),
    Comparison("hpcdl-2", "often-2", None, None, "2 ranks / asking each other every 1 ms"),
    Comparison("hpcdl-2", "hpcdl-1", None, None, "2 ranks on a core each / 1 process on all"),
    Comparison("hpcdl-1", "ddp-1", None, None, "one process / PyTorch as documented"),
    Comparison("hpcdl-1", "ddp-tuned-1", None, None, "one process / PyTorch tuned"),
    Comparison("hpcdl-2", "ddp-2", None, None, "2 ranks / PyTorch DDP as documented"),
    Comparison("hpcdl-2", "ddp-tuned-2", None, None, "2 ranks / PyTorch DDP tuned"),
    Comparison("ddp-tuned-2", "ddp-tuned-1", None, None, "PyTorch DDP tuned: 2 ranks / 1 process"),
)


def environ_of_programs() -> Dict[str, str]:
    """Gives the variables of what `tools/programs` holds: this hpcdl, and what the user has besides."""
    return {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def make_points(
    machine: Machine, window: Window, mpirun: str, torch_python: Optional[Path] = None
) -> List[Point]:
    """Describes what is measured on a machine; PyTorch where its Python is given."""
    python = sys.executable
    bench = BenchSettings(steps=window.steps, untimed_steps=window.untimed_steps)
    environ = {**environ_of_programs(), **bench.to_environ()}
    mpi = {**environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    plain = (python, str(_PROGRAMS / "plain_fit.py"))
    script = (python, str(_PROGRAMS / "horovod_script.py"))

    def hpcdl(np: int, settings: BenchSettings = bench, more: Optional[Dict[str, str]] = None) -> Any:
        def starts(places: Sequence[Path]) -> List[Start]:
            (place,) = places
            words = [python, "-m", "hpcdl", "train", "--np", str(np), "--run-dir", str(place)]
            if np > 1:
                words += ["--log-dir", str(place.with_name("logs"))]
            return [Start((*words, WORKLOAD), {**environ, **settings.to_environ(), **(more or {})})]

        return starts

    def by_mpirun(options: Sequence[str], more: Dict[str, str]) -> Any:
        words = (mpirun, "-np", str(NUM_RANKS), *options, *script)
        return lambda places: [Start((*words, str(places[0]), WORKLOAD), {**mpi, **more})]

    def independent(places: Sequence[Path]) -> List[Start]:
        # A core each, and the same threads as a rank of hpcdl: TensorFlow takes its count from the affinity.
        meeting = str(places[0].parent / "meeting")
        settings = replace(bench, meet_dir=meeting, meet_count=NUM_RANKS)
        cores = [cpu for core in machine.cores for cpu in core]
        per_rank = len(cores) // NUM_RANKS
        return [
            Start(
                (*plain, str(place), WORKLOAD),
                {**environ, **settings.to_environ()},
                tuple(cores[i * per_rank : (i + 1) * per_rank]),
            )
            for i, place in enumerate(places)
        ]

    def ddp(np: int, *options: str) -> Point:
        run = [str(torch_python), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(np)]
        words = (*run, str(_PROGRAMS / "ddp_script.py"))
        name = "-".join(["ddp", *(option.strip("-") for option in options), str(np)])
        return Point(
            name, lambda p: [Start((*words, str(p[0]), WORKLOAD, *options), environ)], 1, BATCH_SIZE * np
        )

    both = BATCH_SIZE * NUM_RANKS
    control = replace(bench, without_exchange=True)
    documented = ("--bind-to", "none", "--map-by", "slot", "--mca", "pml", "ob1", "--mca", "btl", "^openib")
    cured = ("--bind-to", "core", "--map-by", "core")
    yields = {"OMPI_MCA_mpi_yield_when_idle": "1"}
    return [
        Point("plain-1", lambda p: [Start((*plain, str(p[0]), WORKLOAD), environ)], 1, BATCH_SIZE),
        Point("hpcdl-1", hpcdl(1), 1, BATCH_SIZE),
        Point("hpcdl-2", hpcdl(NUM_RANKS), 1, both),
        Point("control-2", hpcdl(NUM_RANKS, control), 1, both),
        Point("often-2", hpcdl(NUM_RANKS, more={"HOROVOD_CYCLE_TIME": "1"}), 1, both),
        Point("script-2", by_mpirun(documented, {}), 1, both),
        Point("cured-2", by_mpirun(cured, yields), 1, both),
        Point("independent-2", independent, NUM_RANKS, BATCH_SIZE),
        *(
            [ddp(np, *options) for np in (1, NUM_RANKS) for options in ((), ("--tuned",))]
            if torch_python
            else []
        ),
    ]


def provenance(chosen: Chosen, machine: Machine) -> Dict[str, Any]:
    """Says what was measured, where and when: as the runs of hpcdl among the points have it."""
    runs = [
        run for r in chosen.rounds for m in r.measurements.values() for run in m.runs if "versions" in run
    ]
    return {
        "processor": processor(),
        "num_cores": machine.num_cores,
        "began": min((run["started"] for run in runs), default=None),
        "ended": max((run["ended"] for run in runs), default=None),
        "software": distinct(
            [{name: run.get(name) for name in ("versions", "source", "libraries")} for run in runs]
        ),
    }


def figures(chosen: Chosen, names: Sequence[str], window: Window, machine: Machine) -> Dict[str, Any]:
    """Works out the rates of the points and the ratios between them."""
    rates = {name: estimate([r.rate(name) for r in chosen.rounds]) for name in names}
    compared = []
    for comparison in COMPARISONS:
        if {comparison.numerator, comparison.denominator} <= set(names):
            found = ratio(
                [r.rate(comparison.numerator) for r in chosen.rounds],
                [r.rate(comparison.denominator) for r in chosen.rounds],
            )
            verdict = None if comparison.goal is None else found.verdict(comparison.goal)
            compared.append({**asdict(comparison), "ratio": asdict(found), "verdict": verdict})
    peaks = {}
    for name in names:
        runs = [run for r in chosen.rounds for run in r.measurements[name].runs]
        known = [run["memory"]["host_peak_bytes"] for run in runs if "memory" in run]
        if known:
            peaks[name] = median(known)
    step_ms = {name: [1e3 * r.measurements[name].step_seconds for r in chosen.rounds] for name in names}
    more = {}
    if {"hpcdl-2", "control-2"} <= set(names):
        parts = [
            split(r.measurements["hpcdl-2"].step_seconds, window.timed(r.measurements["control-2"]), None)
            for r in chosen.rounds
        ]
        more["imbalance_ms"] = asdict(estimate([1e3 * p.imbalance_s for p in parts]))
        more["exchange_ms"] = asdict(estimate([1e3 * p.exchange_s for p in parts]))
    return {
        **more,
        "measured": provenance(chosen, machine),
        "rates_of_rounds": [{name: r.rate(name) for name in names} for r in chosen.rounds],
        "step_ms": {name: asdict(estimate(values)) for name, values in step_ms.items()},
        "peak_bytes_of_a_rank": peaks,
        "rounds": len(chosen.rounds),
        "is_calm": chosen.is_calm,
        "samples_per_second": {name: asdict(rate) for name, rate in rates.items()},
        "comparisons": compared,
        "foreign_cores": [
            {name: round(m.load.cores, 3) for name, m in r.measurements.items() if m.load}
            for r in chosen.rounds
        ],
    }


def render(figures: Dict[str, Any]) -> str:
    """Writes the figures as a table."""
    loaded = "" if figures["is_calm"] else ", UNDER FOREIGN LOAD: figures to be taken with care"
    num_rounds = "1 round" if figures["rounds"] == 1 else f"{figures['rounds']} rounds"
    lines = [f"{num_rounds}{loaded}; median (95 % interval)", ""]
    for name, rate in figures["samples_per_second"].items():
        found = Estimate(**rate)
        interval = "" if found.low is None else f"  ({found.low:.0f} to {found.high:.0f})"
        lines.append(f"  {name:<16}{found.median:7.0f} samples/s{interval}")
    lines.append("")
    for row in figures["comparisons"]:
        goal = "" if row["goal"] is None else f"goal {row['goal']:.2f}: {row['verdict']}"
        aim = "" if row["aim"] is None else f", aim {row['aim']:.2f}"
        lines.append(f"  {row['says']:<46}{Estimate(**row['ratio'])!s:<28}{goal}{aim}".rstrip())
    peaks = figures["peak_bytes_of_a_rank"]
    if {"hpcdl-2", "script-2"} <= set(peaks):
        mine, other = peaks["hpcdl-2"], peaks["script-2"]
        lines.append(
            f"  memory of a rank: {mine / 1e6:.0f} MB, of the Horovod script {other / 1e6:.0f} MB: {mine / other:.3f}"
            f" (goal {MOST_MEMORY:.2f})"
        )
    return "\n".join(lines)


def measure_costs(machine: Machine, folder: Path, lock: Optional[Path]) -> Dict[str, Any]:
    """Times what is no throughput: the command's help, the guard, and sums by MPI and by Horovod."""
    kept = folder / "costs.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(lock):
            wait_until_calm(Effort(1, 1).wait_s)
            guard = folder / "guard.json"
            words = ("train", "--np", str(NUM_RANKS), "--log-dir", str(folder / "guard-logs"))
            program = str(_PROGRAMS / "guard_cost.py")
            command = [sys.executable, "-m", "hpcdl", *words, program, str(guard), WORKLOAD]
            environ = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
            sums = allreduce.measure(
                allreduce.AllreduceOptions(np=NUM_RANKS, bytes=(NUM_PARAMETERS * 4,)),
                place(machine, NUM_RANKS),
            )
            costs = {"help_seconds": seconds_of_help(), "allreduce": sums, "guard": read_json(guard)}
        write_json(kept, costs)
    return read_json(kept)


def render_costs(found: Dict[str, Any]) -> str:
    """Writes what the guard and the exchange cost."""
    costs = found["costs"]
    lines = ["", f"  hpcdl --help: {costs['help_seconds']:.3f} s (goal 0.15)"]
    guard = median(costs["guard"]["seconds"])
    (bare,), (whole,) = (costs["allreduce"]["seconds"][who].values() for who in ("mpi", "horovod"))
    lines.append(
        f"  {NUM_PARAMETERS * 4 / 1e6:.1f} MB summed over {NUM_RANKS} ranks: MPI {1e3 * median(bare):.2f} ms,"
        f" Horovod {1e3 * median(whole):.2f} ms"
    )
    if "exchange_ms" in found:
        exchange, imbalance = Estimate(**found["exchange_ms"]), Estimate(**found["imbalance_ms"])
        lines.append(f"  waiting for the slower rank in a step: {imbalance} ms")
        beyond = exchange.median - 1e3 * median(bare)
        lines.append(
            f"  exchange in a step, beyond that: {exchange} ms, {beyond:.2f} ms beyond MPI's own (goal 1 ms)"
        )
    if "hpcdl-2" in found["step_ms"]:
        step = Estimate(**found["step_ms"]["hpcdl-2"]).median / 1e3
        share = 100 * guard / GUARD_EVERY / step
        lines.append(
            f"  a comparison of the guard: {1e3 * guard:.1f} ms, every {GUARD_EVERY} steps: {share:.2f} % (goal 1 %)"
        )
    return "\n".join(lines)


def seconds_of_help(repeats: int = 7) -> float:
    """Times ``hpcdl --help``: the median of some starts."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hpcdl", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        times.append(time.perf_counter() - begin)
    return estimate(times).median


def main(argv: Sequence[str]) -> int:
    """Measures what is missing, prints the figures, and gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/speed.py", description=(__doc__ or "").split("\n\nSynopsis")[0]
    )
    parser.add_argument(
        "--study", type=Path, default=Path("runs/speed"), metavar="DIR", help="keep measurements in DIR"
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="calm rounds (default: 9)")
    parser.add_argument(
        "--most-rounds", type=int, metavar="N", help="rounds in all (default: twice --rounds)"
    )
    parser.add_argument(
        "--steps", type=int, default=80, metavar="N", help="timed steps of each launch (default: 80)"
    )
    parser.add_argument("--points", metavar="A,B", help="measure these only")
    parser.add_argument(
        "--torch-python", type=Path, metavar="FILE", help="measure PyTorch too, by its own Python"
    )
    parser.add_argument("--lock", type=Path, metavar="FILE", help="lock FILE during each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument(
        "--quick", action="store_true", help="one round of 30 steps, no intervals, in a folder of its own"
    )
    arguments = parser.parse_args(argv)
    window = Window(untimed_steps=15, timed_steps=30 if arguments.quick else arguments.steps)
    rounds, most, study = arguments.rounds, arguments.most_rounds or 2 * arguments.rounds, arguments.study
    if arguments.quick:
        rounds, most, study = 1, 1, study.with_name(study.name + "-quick")
    machine = read_machine(os.environ)
    mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    points = make_points(machine, window, mpirun.path, arguments.torch_python)
    if arguments.points:
        points = _named(points, arguments.points.split(","))
    effort = Effort(rounds=rounds, most_rounds=most, lock=arguments.lock)
    measured = run_rounds(points, window, study.resolve(), effort, say=_say)
    found = figures(choose(measured, rounds), [point.name for point in points], window, machine)
    found["window"] = asdict(window)
    found["costs"] = measure_costs(machine, study.resolve(), arguments.lock)
    print(render(found))
    print(render_costs(found))
    if arguments.json:
        write_json(arguments.json.resolve(), found)
    return EXIT_DONE


def _named(points: Sequence[Point], names: Sequence[str]) -> List[Point]:
    known = [point.name for point in points]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadInput(f"unknown point {', '.join(unknown)}; points are {', '.join(known)}")
    return [point for point in points if point.name in names]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
