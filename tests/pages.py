"""The commands that pages show: in blocks without a language, and in running text."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT))
    for where in ("*.md", "docs/**/*.md", "*/README.md")
    for path in ROOT.glob(where)
    if not path.parent.name.startswith(".")
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAM = re.compile(
    r"\. \S|([\w./]*/)?(hpcdl|python3?|pip|mpirun|make|srun|salloc|sbatch|ip|apptainer|git) "
)


def commands_of(page: str) -> List[str]:
    """Lists the lines of a page's blocks that have no language, without the comments behind them."""
    blocks = [block for language, block in _BLOCK.findall((ROOT / page).read_text()) if not language]
    words = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [" ".join(line) for line in words if line]


def mentions_of(page: str) -> List[str]:
    """Lists what is marked as code in a page's running text and begins with the name of a program."""
    text = _BLOCK.sub("", (ROOT / page).read_text())
    marked = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    return [code for code in marked if _PROGRAM.match(code)]


def words_of_hpcdl(*pages: str) -> List[List[str]]:
    """Lists what stands after ``hpcdl`` in the commands of pages, each once.

    Of running text those count that are whole: with options and without a word in capitals, which stands for another.
    """
    lines = [line for page in pages for line in commands_of(page)]
    lines += [
        line
        for page in pages
        for line in mentions_of(page)
        if len(line.split()) > 4 and not re.search(r" [A-Z]+( |$)", line)
    ]
    return [shlex.split(line)[1:] for line in dict.fromkeys(lines) if line.startswith("hpcdl ")]
