"""The user's code as it was at submission: edits while a job waits in the queue do not change it.

Code is copied into the job's folder. Everything beside it that is no code (data, large files, what git ignores)
is linked, so that a script still finds its neighbours.

Synopsis::

    tree = find_tree(Path("train.py"), code=None)
    freeze(tree, Path("job/code"))          # job/code/train.py
    tree.git                                # {"commit": ..., "diff": ...}, or {}
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Set

from hpcdl.common.errors import BadInput
from hpcdl.launch.git import ask_git

_SUFFIXES = (".py", ".json", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".txt", ".sh")
_NEVER = ("__pycache__", ".git", "hpcdl-jobs")
_LARGE_BYTES = 5_000_000
_MAX_FILES = 10_000


@dataclass(frozen=True)
class Tree:
    """Code to freeze: the files, relative to a root, and the state of git there."""

    root: Path
    files: FrozenSet[Path]
    git: Mapping[str, Any] = field(default_factory=dict)


def find_tree(inside: Path, code: Optional[Path]) -> Tree:
    """Finds the code that belongs to a file or folder.

    Args:
        inside: A script, or the folder that modules are imported from.
        code: The root that the user names; None: the git repository around, else the folder itself.

    Raises:
        BadInput: It is not inside ``code``, or the code is too much.
    """
    inside = inside.resolve()
    folder = inside if inside.is_dir() else inside.parent
    if code is not None:
        root = code.resolve()
        if root != folder and root not in folder.parents:
            raise BadInput(
                f"--code must hold what is run; received {root}, which does not hold {inside}; widen it"
            )
        tree = Tree(root, frozenset(_source_files(root)))
    else:
        tree = _git_tree(folder) or Tree(folder, frozenset(_source_files(folder)))
    if len(tree.files) > _MAX_FILES:
        raise BadInput(
            f"the code to freeze must be at most {_MAX_FILES} files; received {len(tree.files)} in {tree.root};"
            " name a smaller folder with --code"
        )
    return tree


def freeze(tree: Tree, target: Path) -> None:
    """Copies a tree's files to a new folder and links what stands beside them."""
    folders: Set[Path] = {Path(".")}
    for file in tree.files:
        folders.update(file.parents)
    for folder in sorted(folders, key=lambda one: len(one.parts)):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(tree.root / folder):
            path = folder / entry.name
            if path in folders or entry.name in _NEVER or Path(entry.path) == target:
                continue
            if path in tree.files and entry.is_file() and entry.stat().st_size <= _LARGE_BYTES:
                shutil.copy2(entry.path, str(target / path))
            else:
                os.symlink(entry.path, str(target / path))


def _git_tree(folder: Path) -> Optional[Tree]:
    top = ask_git(folder, "rev-parse", "--show-toplevel")
    if not top:
        return None
    root = Path(top.strip()).resolve()
    listed = ask_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = [name for name in listed.split("\0") if name]
    files = frozenset(Path(name) for name in names if (root / name).is_file() or (root / name).is_symlink())
    state = {
        "root": str(root),
        "commit": ask_git(root, "rev-parse", "HEAD").strip() or None,
        "diff": ask_git(root, "diff", "HEAD"),
    }
    return Tree(root, files, state)


def _source_files(root: Path) -> List[Path]:
    """Lists code without git's help: folders without any Python file are data, and not looked into."""
    found: List[Path] = []
    waiting = [root]
    while waiting and len(found) <= _MAX_FILES:
        folder = waiting.pop()
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        if folder != root and not any(entry.name.endswith(".py") for entry in entries):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and entry.name not in (*_NEVER, "runs", "hpcdl-logs"):
                waiting.append(Path(entry.path))
            elif entry.is_file() and entry.name.endswith(_SUFFIXES):
                found.append(Path(entry.path).relative_to(root))
    return found


def git_record(tree: Tree) -> Dict[str, Any]:
    """Gives what the job's description keeps of git: the commit, and whether there were changes."""
    if not tree.git:
        return {}
    return {"root": tree.git["root"], "commit": tree.git["commit"], "is_changed": bool(tree.git["diff"])}
