"""The pictures of scaling studies: speed-up, efficiency, throughput, and where the time goes.

Synopsis::

    svg = {name: to_svg(figure) for name, figure in draw([study]).items()}
"""

from __future__ import annotations

import io
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.common.exchange_times import bus_bandwidth
from hpcdl.common.saying import count
from hpcdl.launch.bench.causes import NAMES
from hpcdl.launch.bench.ratios import Estimate
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.study import Study

_SIZE_INCHES = (6.0, 4.0)
_DOTS_PER_INCH = 150

#: A line of what is ideal: its label, counts of replicas, values.
Ideal = Tuple[str, List[int], List[float]]


def draw(studies: Sequence[Study]) -> Dict[str, Any]:
    """Draws all pictures that the studies have points for, by name; matplotlib's figures."""
    lines = [(_label(studies, s, kind), rows) for s in studies for kind, rows in _by_kind(s) if len(rows) > 1]
    figures = {}
    if lines:
        figures["speed-up"] = _lines(lines, "speed-up", lambda r: r.speed_up, _ideal_speed_ups(lines), True)
        figures["efficiency"] = _lines(lines, "efficiency", lambda r: r.efficiency, _all_of_it(lines), False)
        figures["throughput"] = _lines(lines, "samples/s", lambda r: r.rate, (), False)
    broken_down = [
        (f"{row.num_replicas}\n{_label(studies, s, row.planned.kind)}", row)
        for s in studies
        for row in s.rows
        if row.parts_ms
    ]
    if broken_down:
        figures["breakdown"] = _breakdown(broken_down)
    return figures


def draw_sums(records: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Draws the bandwidth of sums over all ranks by the size of the message; {} without records."""
    if not records:
        return {}
    figure, axes = _axes()
    for record in records:
        for who, by_size in record["seconds"].items():
            sizes = sorted(map(int, by_size))
            p = record["num_ranks"]
            rates = [bus_bandwidth(n, p, median(by_size[str(n)])) / 1e9 for n in sizes]
            label = f"{'MPI' if who == 'mpi' else 'Horovod'}, {p} ranks"
            axes.plot(sizes, rates, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    sizes = sorted({int(n) for record in records for by_size in record["seconds"].values() for n in by_size})
    few = sizes[:: -(-len(sizes) // 8)]
    axes.set_xticks(few, [_bytes(n) for n in few])
    axes.minorticks_off()
    axes.set_xlabel("message")
    axes.set_ylabel("bandwidth of each link, GB/s")
    axes.grid(alpha=0.3)
    axes.legend()
    return {"allreduce": figure}


def _bytes(number: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:g} {unit}"
    return f"{number} B"


def to_svg(figure: Any) -> str:
    """Writes a figure as SVG, the same for the same figure."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "hpcdl", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def save_png(figure: Any, path: Path) -> None:
    """Writes a figure as PNG."""
    figure.savefig(str(path), format="png", dpi=_DOTS_PER_INCH)


def _by_kind(study: Study) -> List[Tuple[str, List[Row]]]:
    return [(kind, [r for r in study.rows if r.planned.kind == kind]) for kind in ("weak", "strong")]


def _label(studies: Sequence[Study], study: Study, kind: str) -> str:
    return kind if len(studies) == 1 else f"{study.name} {kind}"


def _axes(width: float = _SIZE_INCHES[0]) -> Tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot there is no display, and nothing global

    figure = Figure(figsize=(width, _SIZE_INCHES[1]), layout="constrained")
    return figure, figure.subplots()


def _ideal_speed_ups(lines: Sequence[Tuple[str, List[Row]]]) -> List[Ideal]:
    """Gives what is ideal from each baseline on, as far as the longest line that begins there."""
    longest: Dict[int, List[Row]] = {}
    for _, rows in lines:
        baseline = round(rows[0].num_replicas / rows[0].ideal)
        longest[baseline] = max(longest.get(baseline, rows), rows, key=lambda of_line: of_line[-1].ideal)
    return [
        (
            "ideal" if len(longest) == 1 else f"ideal from {count(baseline, 'replica')}",
            [row.num_replicas for row in rows],
            [row.ideal for row in rows],
        )
        for baseline, rows in sorted(longest.items())
    ]


def _all_of_it(lines: Sequence[Tuple[str, List[Row]]]) -> List[Ideal]:
    counts = [row.num_replicas for _, rows in lines for row in rows]
    return [("ideal", [min(counts), max(counts)], [1.0, 1.0])]


def _lines(
    lines: Sequence[Tuple[str, List[Row]]], what: str, value: Any, ideals: Sequence[Ideal], is_log: bool
) -> Any:
    figure, axes = _axes()
    for label, rows in lines:
        counts = [row.num_replicas for row in rows]
        estimates = [value(row) for row in rows]
        spreads = [e.spread or (e.median, e.median) for e in estimates]
        errors = [
            [e.median - low for e, (low, _) in zip(estimates, spreads)],
            [high - e.median for e, (_, high) in zip(estimates, spreads)],
        ]
        axes.errorbar(
            counts,
            [e.median for e in estimates],
            errors,
            marker="o",
            capsize=3,
            label=label + _bars(estimates),
        )
    for label, counts, values in ideals:
        axes.plot(counts, values, "k--", linewidth=1, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({row.num_replicas for _, rows in lines for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    if is_log:  # what is ideal is a straight line
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("replicas")
    axes.set_ylabel(what)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _bars(estimates: Sequence[Estimate]) -> str:
    """Says what the error bars of a line show, where it has any."""
    seen = [e for e in estimates if e.spread is not None and e.spread[0] < e.spread[1]]
    if not seen:
        return ""
    return " (95 %)" if all(e.has_interval for e in seen) else " (range)"


def _breakdown(rows: Sequence[Tuple[str, Row]]) -> Any:
    """Stacks the parts of a step; what noise made negative counts as nothing."""
    figure, axes = _axes(max(_SIZE_INCHES[0], 0.9 * len(rows)))
    labels = [label for label, _ in rows]
    at = [0.0] * len(rows)
    for name in NAMES:
        parts = [max(0.0, row.parts_ms[name].median) if name in row.parts_ms else 0.0 for _, row in rows]
        if any(name in row.parts_ms for _, row in rows):
            axes.bar(labels, parts, bottom=at, label=name, width=0.5)
        at = [a + p for a, p in zip(at, parts)]
    axes.set_ylim(0, 1.08 * max(at))
    axes.set_xlabel("replicas")
    axes.set_ylabel("ms in a step")
    axes.legend()
    return figure
