"""Small text files that a reader sees whole, the old one or the new one, never a part.

Synopsis::

    replace_text(Path("rank-0007.pid"), "4711\\n")
"""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name beside it, then renames."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(str(temporary), str(path))
