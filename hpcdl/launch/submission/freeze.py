"""The user's code as it was at submission: edits while a job waits in the queue do not change it.

Code is copied into the job's folder. Everything beside it that is no code (data, large files, what git ignores, the
folders of runs, what may not be read) is linked, so that a script still finds its neighbours. The script and the
sources beside it are copied whoever ignores them. The folders of jobs are neither: each would hold all that were before
it.

Synopsis::

    tree = find_tree(Path("train.py"), code=None)
    freeze(tree, Path("job/code"))          # job/code/train.py
    tree.git                                # {"commit": ..., "diff": ..., ...}, or {}
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
#: A folder that holds more, and no Python, is data.
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
    folder = inside if os.path.isdir(inside) else inside.parent
    if code is not None:
        root = code.resolve()
        if root != folder and root not in folder.parents:
            raise BadInput(
                f"--code must hold what is run; received {root}, which does not hold {inside}; widen it"
            )
        tree = Tree(root, frozenset(_source_files(root)))
    else:
        tree = _git_tree(folder) or Tree(folder, frozenset(_source_files(folder)))
    tree = _with_own(tree, inside, folder)
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
            if path in tree.files and _can_be_copied(entry.path):
                shutil.copy2(entry.path, str(target / path))
            else:
                os.symlink(entry.path, str(target / path))


def _can_be_copied(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK) and os.path.getsize(path) <= _LARGE_BYTES


def _with_own(tree: Tree, inside: Path, folder: Path) -> Tree:
    """Adds the script and the sources beside it, or all of its folder's where nothing of that is code so far."""
    is_left_out = not any(tree.root / file.parent == folder for file in tree.files)
    files = {(folder / path).relative_to(tree.root) for path in _source_files(folder, deep=is_left_out)}
    if inside != folder:
        files.add(inside.relative_to(tree.root))
    git = dict(tree.git)
    if git.get("is_changed") is False and not files <= tree.files:
        git["is_changed"] = True
    return Tree(tree.root, tree.files | files, git)


def _git_tree(folder: Path) -> Optional[Tree]:
    top = ask_git(folder, "rev-parse", "--show-toplevel")
    if not top:
        return None
    root = Path(top.strip()).resolve()
    listed = {
        path: is_known
        for path, is_known in _git_files(root).items()
        if os.path.isfile(root / path) or os.path.islink(root / path)
    }
    diff = ask_git(root, "diff", "--submodule=diff", "HEAD")
    state = {
        "root": str(root),
        "commit": (ask_git(root, "rev-parse", "HEAD") or "").strip() or None,
        "diff": diff or "",
        "is_changed": None if diff is None else bool(diff) or not all(listed.values()),
    }
    return Tree(root, frozenset(listed), state)


def _git_files(root: Path) -> Dict[Path, bool]:
    """Lists what git does not ignore, also in repositories inside of this one, but for what hpcdl has made.

    Returns:
        Path -> whether git knows it.
    """
    known = [Path(line.partition("\t")[2]) for line in _ls_files(root, "--stage")]
    others = [Path(name) for name in _ls_files(root, "--others", "--exclude-standard")]
    new = _outside(root, others, lambda folder: _is_never_wanted(folder) or _is_output(folder))
    listed = {**dict.fromkeys(_outside(root, known, _is_never_wanted), True), **dict.fromkeys(new, False)}
    # A submodule, or a clone that git does not know, is listed as one name.
    inner = [path for path in listed if os.path.exists(root / path / ".git")]
    for path in inner:
        for file, is_known in _git_files(root / path).items():
            listed[path / file] = listed[path] and is_known
    return listed


def _ls_files(root: Path, *which: str) -> List[str]:
    return [name for name in (ask_git(root, "ls-files", "-z", *which) or "").split("\0") if name]


def _outside(root: Path, paths: Sequence[Path], is_left_out: Callable[[Path], bool]) -> List[Path]:
    """Leaves out what is, or stands in, a folder that is left out; each folder is asked about once."""
    verdicts: Dict[Path, bool] = {Path(): False}

    def verdict(path: Path) -> bool:
        if path not in verdicts:
            verdicts[path] = verdict(path.parent) or is_left_out(root / path)
        return verdicts[path]

    return [path for path in paths if not verdict(path if os.path.isdir(root / path) else path.parent)]


def _is_never_wanted(path: Path) -> bool:
    """Whether this is no code whoever knows it: git's own, caches, and the folders of jobs whatever their names."""
    return path.name in _NEVER or (os.path.isfile(path / "job.json") and os.path.isdir(path / "lib"))


def _is_output(folder: Path) -> bool:
    return folder.name in _OUTPUTS or (
        os.path.isfile(folder / "run.json") and os.path.isdir(folder / "checkpoints")
    )


def _source_files(root: Path, deep: bool = True) -> List[Path]:
    """Lists code without git's help, in a folder and, if ``deep``, below it.

    A folder that holds other things than texts, or many texts, is data, unless there is Python in it; in the first case
    Python may be below it.
    """
    found: List[Path] = []
    mixed: Set[Path] = set()
    waiting = [root]
    while waiting and len(found) <= _MAX_FILES:
        folder = waiting.pop()
        entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
        files = [entry.name for entry in entries if _is_file(entry)]
        texts = [name for name in files if name.endswith(_SUFFIXES)]
        if folder != root and len(entries) > _MAX_TEXTS and not any(name.endswith(".py") for name in texts):
            continue
        if folder != root and len(texts) < len(files):
            mixed.add(folder.relative_to(root))
        found += [(folder / name).relative_to(root) for name in texts]
        below = [Path(entry.path) for entry in entries if deep and entry.is_dir(follow_symlinks=False)]
        waiting += [path for path in below if not _is_never_wanted(path) and not _is_output(path)]
    data = mixed - {folder for path in found if path.suffix == ".py" for folder in path.parents}
    return [path for path in found if data.isdisjoint(path.parents)] if len(found) <= _MAX_FILES else found


def _entries(folder: Path) -> List[os.DirEntry[str]]:
    """Lists a folder; what may not be read is no code."""
    try:
        return list(os.scandir(folder))
    except PermissionError:
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to where one may not look
        return False


def git_record(tree: Tree) -> Dict[str, Any]:
    """Gives what the job's description keeps of git: the commit, and whether what is frozen differs (None: unknown)."""
    if not tree.git:
        return {}
    return {"root": tree.git["root"], "commit": tree.git["commit"], "is_changed": tree.git["is_changed"]}
