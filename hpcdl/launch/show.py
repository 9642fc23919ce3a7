"""The command ``hpcdl show``: what runs gave, side by side, and their curves.

Synopsis::

    sys.exit(main(["runs/fashion_mnist-cnn_dropout-3f9a01c2"]))
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.files import is_there
from hpcdl.common.options import OneLineParser
from hpcdl.common.records import SCHEMA_VERSION, as_json, check_schema, one_of_each, read_history, read_json
from hpcdl.common.saying import rate, say
from hpcdl.launch.columns import in_columns
from hpcdl.launch.records import OF_RUN, damaged

_EXAMPLES = """\
examples:
  hpcdl show runs                                  all runs there, in one table
  hpcdl show runs/first runs/second --curves both.png
  hpcdl show --json runs/first | jq .[0].record.final_metrics"""
_CURVES = "curves.png"
_LEGEND_COLUMNS = 2  # a run's curve in training and test beside each other
_DOTS_PER_INCH = 150


@dataclass(frozen=True)
class RunFiles:
    """What a run has written.

    Attributes:
        path: The run folder.
        record: Of ``run.json``.
        history: A value for each epoch that is done, by name, None where it had none; empty before the first epoch.
    """

    path: Path
    record: Mapping[str, Any]
    history: Mapping[str, List[Optional[float]]]

    @property
    def metrics(self) -> Mapping[str, List[Optional[float]]]:
        """One value for each metric and epoch."""
        return one_of_each(self.history)


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl show ARGV``.

    Raises:
        BadInput: A folder holds no run that can be read, or the picture cannot be written.
    """
    parser = OneLineParser(
        prog="hpcdl show",
        description="Show what runs gave, several side by side, and draw their curves.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="a run folder, which must be readable, or a folder of them; later fits of a script follow its first",
    )
    parser.add_argument(
        "--curves",
        metavar="FILE",
        type=Path,
        help="draw the curves to FILE (default: curves.png in the folder of a single run, else here)",
    )
    parser.add_argument("--no-curves", action="store_true", help="draw nothing")
    parser.add_argument(
        "--json", action="store_true", help="print records and histories as JSON; draw nothing"
    )
    options = parser.parse_args(argv)
    runs = read_runs(options.runs)
    if options.json:
        print(as_json([{"path": str(r.path), "record": r.record, "history": r.history} for r in runs]))
        return EXIT_DONE
    print(render(runs))
    drawn = [run for run in runs if run.history]
    if drawn and not options.no_curves:
        first = runs[0].path
        is_one = all(first in (run.path, run.path.parent) for run in runs)
        target = options.curves or (first if is_one else Path()) / _CURVES
        draw(drawn, target)
        print(f"curves: {target}")
    return EXIT_DONE


def draw_each(paths: Sequence[Path]) -> None:
    """Draws the curves of runs that are done, each into its folder, and says so.

    A run of no epoch has none, and nobody wants those of a benchmark. What keeps a picture from being drawn is said in
    one line, once: the runs are done, and as good without.
    """
    said: Dict[str, None] = {}
    for path in paths:
        try:
            run = read_run(path)
            if run.history and "bench" not in run.record:
                draw([run], run.path / _CURVES)
                print(f"curves: {os.path.relpath(str(run.path / _CURVES))}")
        except BadInput as problem:
            said[str(problem)] = None
    for words in said:
        say(f"no curves are drawn: {words}")


def read_runs(paths: Sequence[Path]) -> List[RunFiles]:
    """Reads the runs that `find_runs` finds; of those that nobody has named, it says in one line which cannot be read.

    Raises:
        BadInput: A path holds no run, or it is one that cannot be read, or none of all can.
    """
    runs: List[RunFiles] = []
    left_out: List[BadInput] = []
    for path in find_runs(paths):
        try:
            runs.append(read_run(path))
        except BadInput as problem:
            if path in paths:
                raise
            left_out.append(problem)
    if not runs:
        raise left_out[0]
    for why in left_out:
        say(f"not shown: {why}")
    return runs


def find_runs(paths: Sequence[Path]) -> List[Path]:
    """Lists the run folders among the paths, and in them where they are folders of runs, each once.

    The later fits of a script, which have folders in that of its first one, follow it.

    Raises:
        BadInput: A path holds no run.
    """
    found: Dict[Path, None] = {}
    for path in paths:
        inside = [path] if is_run(path) else sorted(_inside(path, "*"))
        if not inside:
            raise BadInput(
                f"RUN must be a folder with a run.json in it, or a folder of such; received {path};"
                " `ls runs` lists those of this folder"
            )
        for run in inside:
            later = sorted(_inside(run, "fit-*"), key=lambda fit: (len(fit.name), fit.name))
            found.update(dict.fromkeys([run, *later]))
    return list(found)


def is_run(path: Path) -> bool:
    """Says whether a run has begun in a folder.

    Raises:
        BadInput: That cannot be known.
    """
    try:
        return is_there(S_ISREG, path / "run.json")
    except OSError as problem:
        raise BadInput(
            f"RUN must be a folder that can be read; received {path}, into which nobody may look: {problem.strerror};"
            " name others"
        ) from problem


def _inside(folder: Path, pattern: str) -> List[Path]:
    """Lists the run folders in a folder, and what nobody may look into: whoever reads that tells why."""

    def may_be_run(path: Path) -> bool:
        try:
            return is_run(path)
        except BadInput:
            return True

    try:
        return list(filter(may_be_run, folder.glob(pattern)))
    except OSError:  # in some Pythons: nobody may look into the folder itself
        return []


def read_run(path: Path) -> RunFiles:
    """Reads what a run has written so far.

    Raises:
        BadInput: Its files cannot be read, are damaged, or a later hpcdl wrote them.
    """
    try:
        record = read_json(path / "run.json")
        history = read_history(path / "history.csv") if (path / "history.csv").exists() else {}
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"a run's files must be readable; received {path}: {problem}; name another run"
        ) from problem
    check_schema(record, SCHEMA_VERSION, path / "run.json")
    wrong = ", ".join(damaged(record, OF_RUN))
    if "status" not in record or wrong:
        how = f"its {wrong} cannot be read" if wrong else "it lacks a status"
        raise BadInput(
            f"a run.json must say how a run went; received {path}/run.json, which is damaged: {how}; name another run"
        )
    return RunFiles(path, record, history)


def render(runs: Sequence[RunFiles]) -> str:
    """Writes a table with one row for each run."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    head = ["run", "status", "world", "batch", "epochs", *metrics, "samples/s"]
    return in_columns([head, *(_row(run, metrics) for run in runs)], right=range(3, len(head)))


def _row(run: RunFiles, metrics: Sequence[str]) -> List[str]:
    config, topology = run.record.get("config", {}), run.record.get("topology", {})
    size, replicas = topology.get("world_size", "?"), config.get("replicas_per_process", "?")
    world = f"{config.get('strategy', '?')} {size} x {replicas}"
    last = {name: values[-1] for name, values in run.metrics.items() if values}
    num_epochs = max(map(len, run.history.values()), default=0)
    speed = run.record.get("samples_per_second")
    return [
        str(run.path),
        str(run.record["status"]),
        world,
        str(config.get("global_batch_size", "?")),
        f"{num_epochs}/{config.get('epochs', '?')}",
        *("-" if last.get(name) is None else f"{last[name]:.4g}" for name in metrics),
        "-" if speed is None else rate(speed),
    ]


def draw(runs: Sequence[RunFiles], target: Path) -> None:
    """Draws the curves of runs: a panel for each metric, a colour for each run; of validation dashed.

    Args:
        runs: With at least one epoch each.
        target: The picture; its suffix says the format.

    Raises:
        BadInput: There is no matplotlib, or the picture cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as problem:
        raise BadInput(
            f"curves need matplotlib; received: {problem}; run `pip install matplotlib`, then `hpcdl show RUN`; or do"
            " without: hpcdl show --no-curves RUN"
        ) from problem
    panels, names = _panels(runs), _labels([run.path for run in runs])
    rows = -(-2 * len(runs) // _LEGEND_COLUMNS)
    figure = Figure(figsize=(5.5 * len(panels), 4.2 + 0.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for i, run in enumerate(runs):
            width = 1.5 + min(
                6.0, 1.5 * (len(runs) - 1 - i)
            )  # of curves that lie over each other all can be seen
            # One epoch is a point, of which a line's style tells nothing.
            for prefix, style, marker, what in (("", "-", "o", "train"), ("val_", "--", "s", "test")):
                values = enumerate(run.metrics.get(prefix + metric, []), start=1)
                points = [(epoch, value) for epoch, value in values if value is not None]
                if points:
                    axes.plot(
                        *zip(*points),
                        style,
                        color=f"C{i % 10}",
                        linewidth=width,
                        marker=marker,
                        markersize=4,
                        markerfacecolor="white" if prefix else None,
                        label=f"{names[i]}, {what}",
                    )
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    # Below the panels: of many runs it would leave them no room.
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize="small")
    temporary = target.with_name(f".{target.stem}.tmp{target.suffix}")
    try:
        figure.savefig(str(temporary), dpi=_DOTS_PER_INCH)
        os.replace(str(temporary), str(target))
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"the picture must be a file that can be written; received {target}: {problem}"
        ) from problem


def _labels(paths: Sequence[Path]) -> List[str]:
    """Names runs by their folders; those whose names are alike by their paths."""
    names = [_label(path) for path in paths]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names)]


def _label(path: Path) -> str:
    """Names a run by its folder, a later fit of a script with that of the first one."""
    names = (path.parent.name, path.name) if is_run(path.parent) else (path.name,)
    return "/".join(names) or str(path)


def _panels(runs: Sequence[RunFiles]) -> List[str]:
    """Lists the metrics, loss first; those of validation share their panel."""
    names: Dict[str, None] = {}
    for run in runs:
        names.update(dict.fromkeys(name[4:] if name.startswith("val_") else name for name in run.metrics))
    return sorted(names, key=lambda name: (name != "loss", list(names).index(name)))
