"""The table of scaling studies, and how it is written: Markdown, LaTeX, CSV. Pure functions.

Synopsis::

    table = scaling_table([study])
    to_markdown(table)
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from hpcdl.launch.bench.convergence import Reached
from hpcdl.launch.bench.ratios import Estimate
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.study import Study

_HEAD = (
    "scaling",
    "nodes",
    "ranks",
    "replicas",
    "batch per replica",
    "global batch",
    "samples/s",
    "s.e.",
    "MAD",
    "per replica",
    "step p50 ms",
    "step p95 ms",
    "speed-up",
    "ideal",
    "efficiency %",
    "95 % interval",
    "of independent processes %",
    "input wait ms",
    "imbalance ms",
    "exchange ms",
    "GPU use %",
    "memory GB",
    "GPU memory GB",
    "node-hours per epoch",
)


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns."""

    head: Tuple[str, ...]
    rows: Tuple[Tuple[str, ...], ...]


def scaling_table(studies: Sequence[Study], campaign_epochs: Optional[int] = None) -> Table:
    """Makes one table of studies; with several, the first column names them."""
    several = len(studies) > 1
    head = (
        *(("study",) if several else ()),
        *_HEAD,
        *((f"node-hours for {campaign_epochs} epochs",) if campaign_epochs is not None else ()),
        "remark",
    )
    rows = []
    for study in studies:
        for row in study.rows:
            name = (study.folder.name,) if several else ()
            campaign = (_amount(row.node_hours(campaign_epochs)),) if campaign_epochs is not None else ()
            rows.append((*name, *_cells(row), *campaign, "; ".join(remarks(row, study)) or "-"))
    return Table(head, tuple(rows))


def convergence_table(reached: Sequence[Reached]) -> Table:
    """Makes the table of runs by the time to their target."""
    head = (
        "replicas",
        "global batch",
        "runs",
        "reached it",
        "epochs to target",
        "s to target",
        "samples/s",
        "throughput efficiency %",
        "time-to-target efficiency %",
    )
    rows = [
        (
            str(row.num_replicas),
            str(row.global_batch_size),
            str(row.num_runs),
            str(row.num_reached),
            _number(row.epochs, "g"),
            _number(row.seconds, ".1f"),
            _number(row.samples_per_second, ".0f"),
            _number(row.throughput_efficiency, ".1f", 100),
            _number(row.time_efficiency, ".1f", 100),
        )
        for row in reached
    ]
    return Table(head, tuple(rows))


def compact(table: Table) -> Table:
    """Leaves out the columns in which no row knows anything."""
    return _columns(table, [i for i in range(len(table.head)) if any(row[i] != "-" for row in table.rows)])


#: The columns that say which point a row is, and those that a page shows in a second table.
_NAMES = ("study", "scaling", "nodes", "replicas")
_SECOND = (
    "step p50 ms",
    "step p95 ms",
    "of independent processes %",
    "input wait ms",
    "imbalance ms",
    "exchange ms",
    "GPU use %",
    "memory GB",
    "GPU memory GB",
)


def divided(table: Table) -> List[Table]:
    """Divides the table of studies into two that fit a page: throughput, and the step with what it costs."""
    is_second = [name in _SECOND or name.startswith("node-hours") for name in table.head]
    first = [i for i, second in enumerate(is_second) if not second]
    second = [i for i, name in enumerate(table.head) if is_second[i] or name in _NAMES]
    return [_columns(table, first), _columns(table, second)]


def _columns(table: Table, kept: Sequence[int]) -> Table:
    return Table(tuple(table.head[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in table.rows))


def _cells(row: Row) -> Tuple[str, ...]:
    rate = row.rate.median
    return (
        row.planned.kind,
        str(row.planned.num_nodes),
        str(row.planned.num_ranks),
        str(row.num_replicas),
        str(row.per_replica_batch_size),
        str(row.global_batch_size),
        f"{rate:.0f}",
        _number(row.standard_error, ".0f"),
        f"{row.jitter:.0f}",
        f"{rate / row.num_replicas:.0f}",
        f"{row.step_p50_ms:.1f}",
        f"{row.step_p95_ms:.1f}",
        f"{row.speed_up.median:.2f}",
        f"{row.ideal:g}",
        f"{100 * row.efficiency.median:.1f}",
        _interval(row.efficiency),
        _percent(row.ceiling),
        *(_part(row, name) for name in ("input", "imbalance", "exchange")),
        _number(row.gpu_use_percent, ".0f"),
        _number(row.host_peak_bytes, ".2f", 1e-9),
        _number(row.gpu_peak_bytes, ".2f", 1e-9),
        _amount(row.node_hours()),
    )


def _number(value: Optional[float], form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(factor * value, form)


def _amount(value: Optional[float]) -> str:
    """Writes hours that may be many or a small part of one, never with an exponent."""
    return "-" if value is None else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def remarks(row: Row, study: Study) -> List[str]:
    """Says what a reader must know of a point before taking its figures."""
    said = []
    if row.planned.is_functional_only:
        said.append("functional, not performance")
    if study.record.get("num_gpus") == 0:
        said.append("CPU")
    if row.num_loaded:
        said.append(f"foreign load in {row.num_loaded} of {study.num_rounds} rounds")
    return said


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _part(row: Row, name: str) -> str:
    return f"{max(0.0, row.parts_ms[name].median):.1f}" if name in row.parts_ms else "-"


def _percent(estimate: Optional[Estimate]) -> str:
    return "-" if estimate is None else f"{100 * estimate.median:.1f}"


def to_markdown(table: Table) -> str:
    """Writes a table for Markdown."""
    lines = ["| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Writes a table for LaTeX, with the rules of the booktabs package."""
    columns = "l" + "r" * (len(table.head) - 2) + ("l" if table.head[-1] == "remark" else "r")
    body = [" & ".join(map(_latex, row)) + r" \\" for row in (table.head, *table.rows)]
    lines = [
        r"\begin{tabular}{" + columns + "}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
    ]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    for character in "&%#_$":
        text = text.replace(character, "\\" + character)
    return text


def to_csv(table: Table) -> str:
    """Writes a table as comma-separated values."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(table.head)
    rows.writerows(table.rows)
    return file.getvalue()
