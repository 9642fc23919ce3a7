"""Tables for a terminal.

Synopsis::

    print(in_columns([["run", "epochs"], ["runs/first", "12"]], right=[1]))
"""

from __future__ import annotations

from typing import Container, Sequence


def in_columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Writes rows, of which the first is the head, with columns as wide as they need be.

    Args:
        rows: All of the same length.
        right: Columns that are set to the right.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
