"""The command ``hpcdl bench report``: tables, pictures and text from records, for a proposal or a page.

Synopsis::

    sys.exit(main(["bench/first", "--format", "md,html", "--output", "report"]))
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.checks import parse_share
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OneLineParser, folder_to_write
from hpcdl.common.saying import say
from hpcdl.launch.bench.convergence import Reached, Target, convergence, parse_target
from hpcdl.launch.bench.likeness import check_one_training, check_trained
from hpcdl.launch.bench.page import page
from hpcdl.launch.bench.software import differing
from hpcdl.launch.bench.sources import Sources, read_sources
from hpcdl.launch.bench.study import Study
from hpcdl.launch.bench.tables import (
    Sheet,
    Table,
    compact,
    convergence_sheet,
    divided,
    scaling_sheet,
    sums_sheet,
    to_csv,
    to_latex,
    to_markdown,
)
from hpcdl.launch.bench.text import Said, sentences

FORMATS = ("md", "tex", "csv", "html", "json")
_THRESHOLD = 0.75
_EXAMPLES = """\
examples:
  hpcdl bench report bench/first                            print the table
  hpcdl bench report bench/first --output report            write all formats and the pictures
  hpcdl bench report bench/* --format md --threshold 0.8    studies side by side
  hpcdl bench report bench/first runs/* --target val_accuracy=0.9 --campaign-epochs 90"""


@dataclass(frozen=True)
class Report:
    """What is to be written.

    Attributes:
        sources: It is made of these.
        threshold: The least efficiency of what is recommended.
        campaign_epochs: Of the planned campaign; None: none is planned.
        target: That runs had to reach; None: none was named.
        reached: How long they took.
        pictures: By name, as SVG, which lie beside the text; {}: none do.
    """

    sources: Sources
    threshold: float
    campaign_epochs: Optional[int]
    target: Optional[Target]
    reached: Sequence[Reached]
    pictures: Mapping[str, str]


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench report ARGV``.

    Raises:
        BadInput: A path holds no record, or they are of different software or trainings.
    """
    options = _parser().parse_args(argv)
    formats = _formats(options.format, FORMATS if options.output is not None else ("md",))
    target = parse_target(options.target) if options.target is not None else None
    sources = read_sources(options.records)
    _check_whole(sources, target)
    kinds = [name for name in ("studies", "runs", "sums") if getattr(sources, name)]
    if options.output is None and "csv" in formats and len(kinds) > 1:
        raise BadInput(
            f"CSV has one table in a file; received {' and '.join(kinds)}, which make {len(kinds)}, for the screen;"
            " pass --output DIR"
        )
    for problem in (problem for study in sources.studies for problem in study.problems):
        say(problem)
    if not options.force:
        check_same_software(sources.studies)
        check_one_training(sources.studies)
        check_trained(sources.runs)
    reached = convergence(sources.runs, target) if target is not None else []
    figures = _figures(sources) if options.output is not None or "html" in formats else {}
    report = Report(sources, options.threshold, options.campaign_epochs, target, reached, _as_svg(figures))
    written = render(report, formats)
    if options.output is None:
        print("\n".join(written.values()))
        return EXIT_DONE
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (options.output / name).write_text(text, encoding="utf-8")
    _write_pictures(figures, report.pictures, options.output)
    print(f"{options.output}: {', '.join(sorted(path.name for path in options.output.iterdir()))}")
    return EXIT_DONE


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="hpcdl bench report",
        description="Write tables, pictures and text from records.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "records",
        metavar="RECORD",
        nargs="+",
        type=Path,
        help="the folder of a study or of a run, or a file of hpcdl bench allreduce",
    )
    parser.add_argument(
        "--format",
        metavar="LIST",
        help=f"write these of {','.join(FORMATS)} (default: all to a folder, else md)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=partial(folder_to_write, "--output"),
        help="write scaling.* and the pictures to DIR, not to the screen",
    )
    parser.add_argument(
        "--threshold", metavar="X", type=partial(parse_share, "--threshold"), default=_THRESHOLD,
        help="recommend the largest count with this efficiency (default: 0.75)",
    )  # fmt: skip
    parser.add_argument(
        "--campaign-epochs", metavar="N", type=_epochs, help="say what N epochs cost in node-hours"
    )
    parser.add_argument(
        "--target", metavar="METRIC=X", help="compare the runs by the time until they reached X"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="put what is of different software, or differs otherwise, into one table",
    )
    return parser


def _epochs(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise BadInput(f"--campaign-epochs must be a whole number >= 1; received {text!r}; pass e.g. 90")
    return int(text)


def _formats(text: Optional[str], otherwise: Sequence[str]) -> Tuple[str, ...]:
    names = tuple(otherwise) if text is None else tuple(text.split(","))
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise BadInput(
            f"formats are {', '.join(FORMATS)}; received {', '.join(unknown)}; leave it out, or pass one"
        )
    return names


def _check_whole(sources: Sources, target: Optional[Target]) -> None:
    if (target is None) != (not sources.runs):
        received = "no --target" if target is None else "no run"
        raise BadInput(
            f"runs and the target that they had to reach go together; received {received}; pass both, e.g. runs/*"
            " --target val_accuracy=0.9, or neither"
        )


def check_same_software(studies: Sequence[Study]) -> None:
    """Refuses measurements of different software: a curve through them would show its changes too.

    Raises:
        BadInput: They differ, in one study or between several.
    """
    differ = differing([one for study in studies for one in study.software])
    if differ:
        raise BadInput(
            "what stands in one table must be of the same software; received"
            f" {', '.join(str(study.folder) for study in studies)}, which differ in {', '.join(differ)};"
            " report them one by one, or pass --force"
        )


def render(report: Report, formats: Sequence[str]) -> Dict[str, str]:
    """Writes a report in formats, by the name of the file."""
    sheets = _sheets(report)
    tables = [(heading, sheet.table()) for heading, sheet in sheets.values()]
    said = [
        (study, sentences(study, report.threshold, report.campaign_epochs))
        for study in report.sources.studies
    ]
    makers = {
        "md": lambda: _proposal(report, tables, said),
        "tex": lambda: "\n".join(to_latex(table) for _, table in _for_pages(tables)),
        "json": lambda: json.dumps(_as_json(report), indent=2) + "\n",
        "html": lambda: _page(report, tables, said),
    }
    written = {f"scaling.{name}": makers[name]() for name in formats if name != "csv"}
    if "csv" in formats:  # a file for each: no program reads two tables in one
        written.update((f"{name}.csv", to_csv(sheet)) for name, (_, sheet) in sheets.items())
    return written


def _sheets(report: Report) -> Dict[str, Tuple[str, Sheet]]:
    """Makes the sheets, each with its heading, by the name of its file."""
    sheets = {}
    if report.sources.studies:
        sheets["scaling"] = ("", scaling_sheet(report.sources.studies, report.campaign_epochs))
    if report.target is not None:
        sheets["time-to-target"] = (f"Time to {report.target}", convergence_sheet(report.reached))
    if report.sources.sums:
        sheets["allreduce"] = ("Sums over all ranks of a node", sums_sheet(report.sources.sums))
    return sheets


def _for_pages(tables: Sequence[Tuple[str, Table]]) -> List[Tuple[str, Table]]:
    """Makes tables that are not too wide: of studies two, the second with a heading of its own."""
    found = []
    for name, table in tables:
        parts = [table] if name else divided(table)
        headings = (name, "The step, and what it costs")
        found += [(heading, compact(part)) for heading, part in zip(headings, parts)]
    return found


def _proposal(report: Report, tables: Sequence[Tuple[str, Table]], said: Sequence[Tuple[Study, Said]]) -> str:
    """Writes a section for a proposal: method, table, figures, what follows."""
    parts = []
    several = len(said) > 1
    for study, of_study in said:
        parts += [f"### {study.name}\n"] if several else []
        parts.append("\n\n".join(of_study.method) + "\n")
    for name, table in tables:
        parts += [f"### {name}\n"] if name else []
        parts.append(to_markdown(compact(table)))
    if report.pictures:
        parts.append("\n".join(f"![{name}]({name}.svg)" for name in report.pictures) + "\n")
    for study, of_study in said:
        is_named = several and (of_study.findings or of_study.advice)
        parts += [f"### {study.name}: what was found\n"] if is_named else []
        parts.append("\n".join(f"* {sentence}" for sentence in of_study.findings) + "\n")
        parts.append("\n\n".join(of_study.advice) + "\n" if of_study.advice else "")
    return "\n".join(part for part in parts if part.strip())


def _page(report: Report, tables: Sequence[Tuple[str, Table]], said: Sequence[Tuple[Study, Said]]) -> str:
    sections = [
        (study.name, [*of_study.advice, *of_study.findings, *of_study.method]) for study, of_study in said
    ]
    return page("Scaling", _for_pages(tables), sections, report.pictures)


def _as_json(report: Report) -> List[Mapping[str, Any]]:
    found: List[Mapping[str, Any]] = []
    for study in report.sources.studies:
        rows = [{**asdict(row), "num_replicas": row.num_replicas} for row in study.rows]
        found.append(
            {
                "kind": "study",
                "name": study.name,
                "study": dict(study.record),
                "run": dict(study.run),
                "num_rounds": study.num_rounds,
                "rows": rows,
                "problems": list(study.problems),
            }
        )
    if report.target is not None:
        rows = [asdict(row) for row in report.reached]
        found.append({"kind": "convergence", "target": asdict(report.target), "rows": rows})
    return [*found, *report.sources.sums]


def _figures(sources: Sources) -> Dict[str, Any]:
    from hpcdl.launch.bench.plots import draw, draw_sums

    return {**draw(sources.studies), **draw_sums(sources.sums)}


def _as_svg(figures: Mapping[str, Any]) -> Dict[str, str]:
    from hpcdl.launch.bench.plots import to_svg

    return {name: to_svg(figure) for name, figure in figures.items()}


def _write_pictures(figures: Mapping[str, Any], as_svg: Mapping[str, str], folder: Path) -> None:
    from hpcdl.launch.bench.plots import save_png

    for name, figure in figures.items():
        (folder / f"{name}.svg").write_text(as_svg[name], encoding="utf-8")
        save_png(figure, folder / f"{name}.png")
