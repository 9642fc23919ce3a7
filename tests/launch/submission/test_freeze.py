"""Frozen code: edits after submission do not reach it, and a script still finds what stands beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.submission.freeze import find_tree, freeze, git_record


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def test_code_is_copied_and_data_is_linked(tmp_path: Path) -> None:
    root, target = tmp_path / "src", tmp_path / "job" / "code"
    script = write(root / "train.py", "old")
    write(root / "lib" / "model.py", "old")
    write(root / "lib" / "sizes.json", "old")
    write(root / "data" / "x.npy", "data")
    write(root / "weights.h5", "data")
    tree = find_tree(script, None)
    freeze(tree, target)
    for path in (script, root / "lib" / "model.py", root / "lib" / "sizes.json"):
        path.write_text("new")
    assert [(target / name).read_text() for name in ("train.py", "lib/model.py", "lib/sizes.json")] == [
        "old"
    ] * 3
    assert (target / "data").is_symlink()
    assert (target / "data" / "x.npy").read_text() == "data"
    assert (target / "weights.h5").resolve() == root / "weights.h5"
    assert git_record(tree) == {}


def test_in_a_repository_all_that_git_does_not_ignore_is_frozen(tmp_path: Path) -> None:
    root, target = tmp_path / "repo", tmp_path / "code"
    script = write(root / "scripts" / "train.py", "old")
    write(root / "pkg" / "model.py", "old")
    write(root / "conf" / "a.yaml", "old")
    write(root / ".gitignore", "data/\n")
    write(root / "data" / "x.npy", "data")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    (root / "pkg" / "model.py").write_text("changed")
    write(root / "pkg" / "new.py", "untracked")
    tree = find_tree(script, None)
    freeze(tree, target)
    (root / "conf" / "a.yaml").write_text("new")
    assert (target / "pkg" / "model.py").read_text() == "changed"
    assert (target / "pkg" / "new.py").read_text() == "untracked"
    assert (target / "conf" / "a.yaml").read_text() == "old"
    assert (target / "data" / "x.npy").read_text() == "data"
    assert not (target / ".git").exists()
    record = git_record(tree)
    assert len(record["commit"]) == 40
    assert record["is_changed"]
    assert "-old" in tree.git["diff"]


def test_a_deleted_file_that_git_still_lists_is_left_out(tmp_path: Path) -> None:
    script = write(tmp_path / "train.py")
    gone = write(tmp_path / "gone.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    gone.unlink()
    freeze(find_tree(script, None), tmp_path / "hpcdl-jobs" / "x" / "code")
    assert (tmp_path / "hpcdl-jobs" / "x" / "code" / "train.py").exists()
    assert not (tmp_path / "hpcdl-jobs" / "x" / "code" / "hpcdl-jobs").exists()


def test_names_with_spaces_quotes_and_newlines_are_frozen_too(tmp_path: Path) -> None:
    root = tmp_path / "a 'b'\n\"c\""
    script = write(root / "tr $ain.py", "x")
    git(root, "init", "-q")
    freeze(find_tree(script, None), tmp_path / "code")
    assert (tmp_path / "code" / "tr $ain.py").read_text() == "x"


def test_code_outside_of_the_named_folder_is_refused(tmp_path: Path) -> None:
    script = write(tmp_path / "a" / "train.py")
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInput, match="--code must hold what is run"):
        find_tree(script, tmp_path / "b")
    assert find_tree(script, tmp_path).root == tmp_path
