"""The command ``hpcdl bench report``: tables, pictures and text from studies, for a proposal or a page.

Synopsis::

    sys.exit(main(["bench/first", "--format", "md,html", "--output", "report"]))
"""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.options import OneLineParser
from hpcdl.common.saying import say
from hpcdl.launch.bench.ratios import FEWEST_ROUNDS
from hpcdl.launch.bench.rows import Row
from hpcdl.launch.bench.software import differing
from hpcdl.launch.bench.study import Study, explain, read_study
from hpcdl.launch.bench.tables import Table, scaling_table, to_csv, to_latex, to_markdown

FORMATS = ("md", "tex", "csv", "html", "json")
_THRESHOLD = 0.75
_EXAMPLES = """\
examples:
  hpcdl bench report bench/first                            print the table
  hpcdl bench report bench/first --output report            write all formats and the pictures
  hpcdl bench report bench/* --format md --threshold 0.8    studies side by side"""


def main(argv: Sequence[str]) -> int:
    """Runs ``hpcdl bench report ARGV``.

    Raises:
        BadInput: A folder holds no study, or the studies are of different software.
    """
    parser = OneLineParser(
        prog="hpcdl bench report",
        description="Write tables, pictures and text from studies.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "studies", metavar="STUDY", nargs="+", type=Path, help="folders that hpcdl bench made"
    )
    parser.add_argument(
        "--format",
        metavar="LIST",
        help=f"write these of {','.join(FORMATS)} (default: all to a folder, else md)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="write scaling.* and the pictures to DIR, instead of printing",
    )
    parser.add_argument(
        "--threshold", metavar="X", type=float, default=_THRESHOLD,
        help="recommend the largest count with this efficiency (default: 0.75)",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="put studies of different software into one table"
    )
    options = parser.parse_args(argv)
    formats = _formats(options.format, FORMATS if options.output is not None else ("md",))
    studies = [read_study(folder) for folder in options.studies]
    for problem in (problem for study in studies for problem in study.problems):
        say(problem)
    if not options.force:
        check_same_software(studies)
    written = render(studies, options.threshold, formats)
    if options.output is None:
        print("\n".join(written[name] for name in formats))
        return EXIT_DONE
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (options.output / f"scaling.{name}").write_text(text, encoding="utf-8")
    _write_pictures(studies, options.output)
    print(f"{options.output}: {', '.join(sorted(path.name for path in options.output.iterdir()))}")
    return EXIT_DONE


def _formats(text: Optional[str], otherwise: Sequence[str]) -> Tuple[str, ...]:
    names = tuple(otherwise) if text is None else tuple(text.split(","))
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise BadInput(
            f"formats are {', '.join(FORMATS)}; received {', '.join(unknown)}; leave it out, or pass one"
        )
    return names


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


def render(studies: Sequence[Study], threshold: float, formats: Sequence[str]) -> Dict[str, str]:
    """Writes the studies in formats, by name."""
    table = scaling_table(studies)
    makers = {
        "md": lambda: proposal(studies, table, threshold),
        "tex": lambda: to_latex(table),
        "csv": lambda: to_csv(table),
        "json": lambda: json.dumps([_as_json(study) for study in studies], indent=2) + "\n",
        "html": lambda: page(studies, table, threshold),
    }
    return {name: makers[name]() for name in formats}


def recommended(study: Study, threshold: float) -> Optional[Row]:
    """Gives the largest weak point whose efficiency reaches the threshold; None where only the baseline is there."""
    rows = [r for r in study.rows if r.planned.kind == "weak"] or list(study.rows)
    good = [r for r in rows if r.efficiency.median >= threshold and not r.planned.is_functional_only]
    return max(good, key=lambda r: r.num_replicas) if len(rows) > 1 and good else None


def sentences(study: Study, threshold: float) -> List[str]:
    """Says how it was measured, where the time goes and how many replicas to take."""
    window, record = study.record["window"], study.record
    versions = ", ".join(f"{name} {value}" for name, value in sorted(study.run.get("versions", {}).items()))
    baseline = study.rows[0]
    said = [
        f"Measured: {record['target']} on {record.get('hostname', '?')} ({record.get('processor', '?')},"
        f" {record.get('num_cores', '?')} cores), {record.get('created', '?')}; {versions}.",
        f"Method: the training loop itself; each point in {study.num_rounds} round(s) of launches of their own,"
        f" interleaved in changing order; {window['timed_steps']} steps timed after {window['untimed_steps']} untimed"
        " ones; throughput is the samples of all replicas over the time of the slowest rank. Ratios are medians over"
        " the rounds, each within its round, with the exact 95 % interval of the sign test.",
        f"Baseline: {baseline.num_replicas} replica(s), {baseline.planned.cores_per_rank} core(s) each; every rank has"
        " as many at all points.",
    ]
    if study.num_rounds < FEWEST_ROUNDS:
        said.append("Too few rounds for intervals: a quick look, no evidence.")
    if not study.is_calm:
        said.append("Something else kept the machine busy in some of the rounds: take the figures with care.")
    if len(study.rows) == 1:
        said.append("One point only: there is no curve, and nothing is said about scaling.")
    for row in study.rows:
        said += [f"{row.planned.kind}, {row.num_replicas} replicas: {text}." for text in explain(row)]
    best = recommended(study, threshold) if study.num_rounds >= FEWEST_ROUNDS else None
    if best is not None:
        said.append(
            f"Recommended: {best.num_replicas} replica(s), the most measured with an efficiency of at least"
            f" {100 * threshold:g} % ({100 * best.efficiency.median:.1f} %)."
        )
    return said


def proposal(studies: Sequence[Study], table: Table, threshold: float) -> str:
    """Writes a section for a proposal: method, table, what follows."""
    parts = [to_markdown(table)]
    for study in studies:
        title = [f"### {study.folder.name}\n"] if len(studies) > 1 else []
        parts += [*title, "\n\n".join(sentences(study, threshold)) + "\n"]
    return "\n".join(parts)


def page(studies: Sequence[Study], table: Table, threshold: float) -> str:
    """Writes one HTML page that needs nothing else."""
    from hpcdl.launch.bench.plots import draw, to_svg

    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    text = "".join(
        f"<h2>{html.escape(study.folder.name)}</h2>"
        + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(study, threshold))
        for study in studies
    )
    pictures = "".join(
        f"<figure>{_inline(to_svg(figure), name)}<figcaption>{name}</figcaption></figure>"
        for name, figure in draw(studies).items()
    )
    return _PAGE.format(head=head, cells=cells, text=text, pictures=pictures)


def _inline(svg: str, name: str) -> str:
    """Gives the element only, its ids made different from those of the page's other pictures."""
    element = svg[svg.index("<svg") :]
    prefix = name.replace(" ", "-") + "-"
    for before in ('id="', 'href="#', "url(#"):
        element = element.replace(before, before + prefix)
    return element


def _as_json(study: Study) -> Dict[str, Any]:
    rows = [{**asdict(row), "num_replicas": row.num_replicas} for row in study.rows]
    return {"study": dict(study.record), "run": dict(study.run), "num_rounds": study.num_rounds, "rows": rows}


def _write_pictures(studies: Sequence[Study], folder: Path) -> None:
    from hpcdl.launch.bench.plots import draw, save_png, to_svg

    for name, figure in draw(studies).items():
        (folder / f"{name}.svg").write_text(to_svg(figure), encoding="utf-8")
        save_png(figure, folder / f"{name}.png")


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Scaling</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 13px }}
th, td {{ padding: .3em .7em; text-align: right; border-bottom: 1px solid #ddd }}
th {{ border-bottom: 2px solid #222; vertical-align: bottom }}
th:first-child, td:first-child, th:last-child, td:last-child {{ text-align: left }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1em }}
figure {{ margin: 0; flex: 1 1 28em }}
figure svg {{ width: 100%; height: auto }}
figcaption {{ text-align: center }}
</style>
</head>
<body>
<h1>Scaling</h1>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></div>
{text}
<div class="pictures">{pictures}</div>
</body>
</html>
"""
