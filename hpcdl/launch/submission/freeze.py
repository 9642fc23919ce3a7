"""The user's code as it was at submission: edits while a job waits in the queue do not change it.

Code is copied into the job's folder. Everything beside it that is no code (data, large files, what git ignores, the
folders of runs) is linked, so that a script still finds its neighbours. The folders of jobs are neither: each would
hold all that were before it.

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
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set

from hpcdl.common.errors import BadInput
from hpcdl.launch.git import ask_git

_SUFFIXES = (".py", ".json", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".txt", ".md", ".sh")
_NEVER = ("__pycache__", ".git", "hpcdl-jobs")
#: Where runs and ranks write. A folder of such a name whose files git knows is the user's own.
_OUTPUTS = ("runs", "hpcdl-logs")
#: A folder without Python that holds more is data.
_MAX_TEXTS = 100
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
            if path in folders or _is_never_wanted(Path(entry.path)) or Path(entry.path) == target:
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
    listed = _git_files(root)
    files = frozenset(path for path in listed if (root / path).is_file() or (root / path).is_symlink())
    state = {
        "root": str(root),
        "commit": ask_git(root, "rev-parse", "HEAD").strip() or None,
        "diff": ask_git(root, "diff", "--submodule=diff", "HEAD"),
    }
    return Tree(root, files, state)


def _git_files(root: Path) -> List[Path]:
    """Lists what git does not ignore, also in repositories inside of this one, but for what hpcdl has made."""
    known = [Path(line.partition("\t")[2]) for line in _ls_files(root, "--stage")]
    others = [Path(name) for name in _ls_files(root, "--others", "--exclude-standard")]
    listed = [
        *_outside(root, known, _is_never_wanted),
        *_outside(root, others, lambda folder: _is_never_wanted(folder) or _is_output(folder)),
    ]
    # A submodule, or a clone that git does not know, is listed as one name.
    inner = [path for path in listed if (root / path / ".git").exists()]
    return [*listed, *(path / file for path in inner for file in _git_files(root / path))]


def _ls_files(root: Path, *which: str) -> List[str]:
    return [name for name in ask_git(root, "ls-files", "-z", *which).split("\0") if name]


def _outside(root: Path, paths: Sequence[Path], is_left_out: Callable[[Path], bool]) -> List[Path]:
    """Leaves out what is, or stands in, a folder that is left out; each folder is asked about once."""
    verdicts: Dict[Path, bool] = {Path(): False}

    def verdict(path: Path) -> bool:
        if path not in verdicts:
            verdicts[path] = verdict(path.parent) or is_left_out(root / path)
        return verdicts[path]

    return [path for path in paths if not verdict(path if (root / path).is_dir() else path.parent)]


def _is_never_wanted(path: Path) -> bool:
    """Whether this is no code whoever knows it: git's own, caches, and the folders of jobs whatever their names."""
    return path.name in _NEVER or ((path / "job.json").is_file() and (path / "lib").is_dir())


def _is_output(folder: Path) -> bool:
    return folder.name in _OUTPUTS or ((folder / "run.json").is_file() and (folder / "checkpoints").is_dir())


def _source_files(root: Path) -> List[Path]:
    """Lists code without git's help; folders of data are not looked into."""
    found: List[Path] = []
    waiting = [root]
    while waiting and len(found) <= _MAX_FILES:
        folder = waiting.pop()
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        if folder != root and _is_data(entries):
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and not _is_never_wanted(path) and not _is_output(path):
                waiting.append(path)
            elif entry.is_file() and entry.name.endswith(_SUFFIXES):
                found.append(path.relative_to(root))
    return found


def _is_data(entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether a folder is data: it has no Python, and other things than a few texts and folders."""
    if any(entry.name.endswith(".py") for entry in entries):
        return False
    return len(entries) > _MAX_TEXTS or any(
        entry.is_file() and not entry.name.endswith(_SUFFIXES) for entry in entries
    )


def git_record(tree: Tree) -> Dict[str, Any]:
    """Gives what the job's description keeps of git: the commit, and whether there were changes."""
    if not tree.git:
        return {}
    return {"root": tree.git["root"], "commit": tree.git["commit"], "is_changed": bool(tree.git["diff"])}
