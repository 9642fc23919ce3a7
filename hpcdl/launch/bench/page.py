"""A report as one HTML page that needs nothing else: no network, no other file.

Synopsis::

    text = page("Scaling", [("", table)], [("first", ["Measured: ..."])], {"speed-up": svg})
"""

from __future__ import annotations

import html
from typing import Mapping, Sequence, Tuple

from hpcdl.launch.bench.tables import Table


def page(
    title: str,
    tables: Sequence[Tuple[str, Table]],
    sections: Sequence[Tuple[str, Sequence[str]]],
    pictures: Mapping[str, str],
) -> str:
    """Writes the page.

    Args:
        title: Its heading.
        tables: Heading and table of each.
        sections: Heading and sentences of each.
        pictures: Name -> SVG.
    """
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [_heading(name) + _table(table) for name, table in tables]
    shown = [
        f"<figure>{_inline(svg, name)}<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, svg in pictures.items()
    ]
    if shown:
        body.append(f'<div class="pictures">{"".join(shown)}</div>')
    for name, said in sections:
        body.append(_heading(name) + "".join(_paragraph(sentence) for sentence in said))
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


def _heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>" if text else ""


def _paragraph(sentence: str) -> str:
    start, colon, rest = sentence.partition(": ")
    lead = f"<b>{html.escape(start)}:</b> " if colon and len(start) < 40 else html.escape(start + colon)
    return f"<p>{lead}{html.escape(rest)}</p>"


def _table(table: Table) -> str:
    is_text = [name == "remark" for name in table.head]
    head = "".join(_cell("th", text, left) for text, left in zip(table.head, is_text))
    rows = "".join(
        "<tr>" + "".join(_cell("td", text, left) for text, left in zip(row, is_text)) + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(tag: str, text: str, is_left: bool) -> str:
    return f"<{tag}{' class=last' if is_left else ''}>{html.escape(text)}</{tag}>"


def _inline(svg: str, name: str) -> str:
    """Gives the element only, its ids made different from those of the page's other pictures."""
    element = svg[svg.index("<svg") :]
    prefix = name.replace(" ", "-") + "-"
    for before in ('id="', 'href="#', "url(#"):
        element = element.replace(before, before + prefix)
    return element


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 80em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }}
h2 {{ margin-top: 1.5em }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3em .55em; text-align: right; border-bottom: 1px solid #ddd }}
td {{ white-space: nowrap }}
th {{ border-bottom: 2px solid #222; vertical-align: bottom; font-weight: 600 }}
th:first-child, td:first-child, .last {{ text-align: left }}
tbody tr:nth-child(even) {{ background: #f6f6f6 }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(28em, 1fr)); gap: 1.5em; margin: 1.5em 0 }}
figure {{ margin: 0 }}
figure svg {{ width: 100%; height: auto }}
figcaption {{ text-align: center; font-size: 13px; color: #555 }}
p {{ max-width: 60em }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
