"""The tables of a report, and how they are written: Markdown, LaTeX, CSV. Pure functions.

Synopsis::

    sheet = scaling_sheet([study])
    to_markdown(sheet.table())
    to_csv(sheet)
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple, Union

from hpcdl.common.exchange_times import bus_bandwidth
from hpcdl.launch.bench.convergence import Reached
from hpcdl.launch.bench.figures import three_digits, with_spread
from hpcdl.launch.bench.ratios import Estimate
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.study import Study
from hpcdl.launch.bench.sums import medians

#: What a cell holds; None: not known.
Value = Union[str, int, float, Estimate, None]


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns."""

    head: Tuple[str, ...]
    rows: Tuple[Tuple[str, ...], ...]


@dataclass(frozen=True)
class Column:
    """A column of values.

    Attributes:
        name: With its unit.
        factor: From the values to that unit.
        form: Writes a number that is not whole, where a person reads it.
        is_estimated: Whether its values are medians with an interval, for which CSV has two columns more.
    """

    name: str
    factor: float = 1.0
    form: Callable[[float], str] = three_digits
    is_estimated: bool = False


@dataclass(frozen=True)
class Sheet:
    """Values in rows and columns: rounded in a table that a person reads, with all digits in CSV."""

    columns: Tuple[Column, ...]
    rows: Tuple[Tuple[Value, ...], ...]

    def table(self) -> Table:
        """Writes the values as a person reads them."""
        return Table(
            tuple(column.name for column in self.columns),
            tuple(tuple(map(_shown, self.columns, row)) for row in self.rows),
        )


_percent = "{:.1f}".format
#: The columns of studies, each with what it shows of a point.
_OF_POINTS: Tuple[Tuple[Column, Callable[[Row], Value]], ...] = (
    (Column("scaling"), lambda row: row.planned.kind),
    (Column("nodes"), lambda row: row.planned.num_nodes),
    (Column("ranks"), lambda row: row.planned.num_ranks),
    (Column("replicas"), lambda row: row.num_replicas),
    (Column("batch per replica"), lambda row: row.per_replica_batch_size),
    (Column("global batch"), lambda row: row.global_batch_size),
    (Column("samples/s", is_estimated=True), lambda row: row.rate),
    (Column("mean samples/s"), lambda row: row.mean),
    (Column("s.e. of the mean"), lambda row: row.standard_error),
    (Column("MAD"), lambda row: row.jitter),
    (Column("per replica"), lambda row: row.rate.median / row.num_replicas),
    (Column("first step s"), lambda row: row.first_step_s),
    (Column("step p50 ms"), lambda row: row.step_p50_ms),
    (Column("step p95 ms"), lambda row: row.step_p95_ms),
    (Column("speed-up"), lambda row: row.speed_up.median),
    (Column("ideal", form="{:g}".format), lambda row: row.ideal),
    (Column("efficiency %", 100, _percent, True), lambda row: row.efficiency),
    (Column("of independent processes %", 100, _percent, True), lambda row: row.ceiling),
    (Column("input wait ms", is_estimated=True), lambda row: row.parts_ms.get("input")),
    (Column("imbalance ms", is_estimated=True), lambda row: row.parts_ms.get("imbalance")),
    (Column("exchange ms", is_estimated=True), lambda row: row.parts_ms.get("exchange")),
    (Column("GPU use %"), lambda row: row.gpu_use_percent),
    (Column("memory GB", 1e-9), lambda row: row.host_peak_bytes),
    (Column("GPU memory GB", 1e-9), lambda row: row.gpu_peak_bytes),
    (Column("node-hours per epoch"), lambda row: row.node_hours()),
)


def scaling_sheet(studies: Sequence[Study], campaign_epochs: Optional[int] = None) -> Sheet:
    """Makes one sheet of studies; with several, the first column names them."""
    columns = [column for column, _ in _OF_POINTS]
    if len(studies) > 1:
        columns.insert(0, Column("study"))
    if campaign_epochs is not None:
        columns.append(Column(f"node-hours for {campaign_epochs} epochs"))
    rows = []
    for study in studies:
        for row in study.rows:
            values = [value(row) for _, value in _OF_POINTS]
            if len(studies) > 1:
                values.insert(0, study.name)
            if campaign_epochs is not None:
                values.append(row.node_hours(campaign_epochs))
            rows.append((*values, "; ".join(remarks(row, study)) or None))
    return Sheet((*columns, Column("remark")), tuple(rows))


def convergence_sheet(reached: Sequence[Reached]) -> Sheet:
    """Makes the sheet of runs by the time to their target."""
    columns = (
        Column("replicas"),
        Column("global batch"),
        Column("runs"),
        Column("reached it"),
        Column("epochs to target", form="{:g}".format),
        Column("s to target"),
        Column("samples/s"),
        Column("throughput efficiency %", 100, _percent),
        Column("time-to-target efficiency %", 100, _percent),
    )
    return Sheet(columns, tuple(astuple(row) for row in reached))


def sums_sheet(records: Sequence[Mapping[str, Any]]) -> Sheet:
    """Makes the sheet of records of `hpcdl bench allreduce`: medians by size, and the bandwidth of each link."""
    columns = (
        Column("ranks"),
        Column("bytes"),
        Column("MPI us", 1e6),
        Column("Horovod us", 1e6),
        Column("added us", 1e6),
        Column("MPI GB/s", 1e-9),
        Column("Horovod GB/s", 1e-9),
        Column("remark"),
    )
    rows = []
    for record in records:
        p, remark = record["num_ranks"], None if record.get("is_calm", True) else "foreign load"
        for size, bare, whole in medians(record):
            rates = (bus_bandwidth(size, p, seconds) for seconds in (bare, whole))
            rows.append((p, size, bare, whole, whole - bare, *rates, remark))
    return Sheet(columns, tuple(rows))


def _shown(column: Column, value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, Estimate):
        return with_spread(value, column.factor, column.form)
    if isinstance(value, float) or column.factor != 1.0:
        return value if isinstance(value, str) else column.form(column.factor * value)
    return str(value)


def compact(table: Table) -> Table:
    """Leaves out the columns in which no row knows anything."""
    return _columns(table, [i for i in range(len(table.head)) if any(row[i] != "-" for row in table.rows)])


#: The columns that say which point a row is, and those that a page shows in a second table.
_NAMES = ("study", "scaling", "nodes", "replicas")
_SECOND = (
    "first step s",
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
    return text.translate(_LATEX)


#: What LaTeX would take for a command, and how it is written.
_LATEX = str.maketrans(
    {
        **{character: "\\" + character for character in "&%#_${}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


def to_csv(sheet: Sheet) -> str:
    """Writes a sheet as comma-separated values, with all digits; what is not known is empty."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    ends = ("", " low", " high")
    rows.writerow(f"{c.name}{end}" for c in sheet.columns for end in (ends if c.is_estimated else ends[:1]))
    for row in sheet.rows:
        rows.writerow(cell for column, value in zip(sheet.columns, row) for cell in _full(column, value))
    return file.getvalue()


def _full(column: Column, value: Value) -> List[Any]:
    values: List[Any] = [value]
    if column.is_estimated:
        estimate = value if isinstance(value, Estimate) else None
        values = [None] * 3 if estimate is None else [estimate.median, estimate.low, estimate.high]
    return [v if v is None or column.factor == 1.0 else column.factor * v for v in values]
