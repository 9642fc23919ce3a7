"""Questions to git, which may not be there.

Synopsis::

    ask_git(folder, "rev-parse", "HEAD")                     # None where there is no git, or no repository
    own_source()                                             # None outside of a checkout of hpcdl
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Optional

import hpcdl
from hpcdl.common.provenance import Source


def ask_git(folder: Path, *words: str) -> Optional[str]:
    """Asks git; None where there is none or it fails, since code without git runs as well."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None


def source_of(package: Path) -> Optional[Source]:
    """Says which commit of hpcdl this is, and whether its code was changed; None where it is no checkout.

    A package that was installed into a folder of somebody else's repository is none.
    """
    if not (package.parent / ".git").exists():
        return None
    commit = ask_git(package.parent, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = ask_git(package.parent, "status", "--porcelain", "--", package.name)
    return Source(commit.strip(), None if changes is None else bool(changes))


def own_source() -> Optional[Source]:
    """Says which code of hpcdl runs here; None where it is no checkout."""
    return source_of(Path(hpcdl.__file__).resolve().parent)
