"""Frozen code: edits after submission do not reach it, and a script still finds what stands beside it."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.submission.freeze import find_tree, freeze, git_record
from tests.ordinary import run_python


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


def test_submitting_again_freezes_the_same_files_wherever_jobs_and_runs_are(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    script = write(root / "train.py")
    write(root / "runs" / "speedrun.sh", "the user's own")
    git(root, "init", "-q")
    git(root, "add", ".")
    frozen = []
    for number, jobs in enumerate(("hpcdl-jobs", "elsewhere", "hpcdl-jobs", "elsewhere")):
        job = root / jobs / str(number)
        tree = find_tree(script, None)
        freeze(tree, job / "code")
        frozen.append({str(file) for file in tree.files})
        write(job / "job.json", "{}")
        write(job / "lib" / "hpcdl" / "__init__.py")
        write(root / "runs" / "x" / "run.json", "{}")
        write(root / "results" / str(number) / "run.json", "{}")
        write(root / "results" / str(number) / "checkpoints" / "a.npz")
        if number == 2:  # by mistake
            git(root, "add", "hpcdl-jobs")
    assert frozen == [{"train.py", "runs/speedrun.sh"}] * 4
    assert not (root / "elsewhere" / "3" / "code" / "hpcdl-jobs").exists()
    assert (root / "elsewhere" / "3" / "code" / "runs" / "x").is_symlink()


def test_repositories_inside_a_repository_are_frozen_too(tmp_path: Path) -> None:
    library, root, target = tmp_path / "library", tmp_path / "repo", tmp_path / "code"
    write(library / "layers.py", "old")
    git(library, "init", "-q")
    git(library, "add", ".")
    git(library, "commit", "-q", "-m", "first")
    script = write(root / "train.py", "old")
    git(root, "init", "-q")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "sub")
    git(root, "commit", "-q", "-m", "first")
    git(root, "clone", "-q", str(library), "clone")
    write(root / "sub" / "new.py", "old")
    (root / "sub" / "layers.py").write_text("changed")
    tree = find_tree(script, None)
    freeze(tree, target)
    for name in ("sub/layers.py", "sub/new.py", "clone/layers.py"):
        (root / name).write_text("new")
    frozen = [(target / name).read_text() for name in ("sub/layers.py", "sub/new.py", "clone/layers.py")]
    assert frozen == ["changed", "old", "old"]
    assert "+changed" in tree.git["diff"]


def test_without_git_folders_of_texts_are_code_and_folders_of_other_files_are_data(tmp_path: Path) -> None:
    root, target = tmp_path / "src", tmp_path / "job" / "code"
    script = write(root / "train.py")
    write(root / "conf" / "model" / "small.yaml", "old")
    write(root / "images" / "labels.txt", "old")
    write(root / "images" / "1.png")
    for number in range(101):
        write(root / "texts" / f"{number}.txt")
    freeze(find_tree(script, None), target)
    write(root / "conf" / "model" / "small.yaml", "new")
    assert (target / "conf" / "model" / "small.yaml").read_text() == "old"
    assert (target / "images").is_symlink()
    assert (target / "texts").is_symlink()


def test_a_picture_beside_a_package_makes_no_data_of_it(tmp_path: Path) -> None:
    root, target = tmp_path / "src", tmp_path / "job" / "code"
    script = write(root / "train.py")
    write(root / "models" / "diagram.png")
    write(root / "models" / "cnn" / "net.py", "old")
    write(root / "models" / "weights" / "a.h5")
    freeze(find_tree(script, None), target)
    write(root / "models" / "cnn" / "net.py", "new")
    assert (target / "models" / "cnn" / "net.py").read_text() == "old"
    assert (target / "models" / "diagram.png").is_symlink()
    assert (target / "models" / "weights").is_symlink()


@pytest.mark.parametrize("ignored", ["exp/", "train.py", "*.py"])
def test_a_script_and_its_neighbours_are_frozen_though_git_ignores_them(ignored: str, tmp_path: Path) -> None:
    root, target = tmp_path / "repo", tmp_path / "code"
    write(root / ".gitignore", f"{ignored}\n*.npy\n")
    script = write(root / "exp" / "train.py", "old")
    neighbour = write(root / "exp" / "model.py", "old")
    write(root / "exp" / "data" / "x.npy")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    tree = find_tree(script, None)
    freeze(tree, target)
    for path in (script, neighbour):
        path.write_text("new")
    assert [(target / "exp" / name).read_text() for name in ("train.py", "model.py")] == ["old", "old"]
    assert (target / "exp" / "data").is_symlink()
    assert git_record(tree)["is_changed"] is True


def test_what_differs_from_the_commit_is_what_is_frozen(tmp_path: Path) -> None:
    script = write(tmp_path / "train.py")
    git(tmp_path, "init", "-q")
    assert git_record(find_tree(script, None))["is_changed"] is None  # from no commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    write(tmp_path / "runs" / "x" / "run.json")
    assert git_record(find_tree(script, None))["is_changed"] is False
    write(tmp_path / "new.py")
    assert git_record(find_tree(script, None))["is_changed"] is True


def test_what_may_not_be_read_is_linked_like_data(tmp_path: Path) -> None:
    write(tmp_path / "train.py")
    write(tmp_path / "secret.json").chmod(0)
    for name, mode in (("closed", 0), ("listed", 0o400)):
        write(tmp_path / name / "x.py")
        (tmp_path / name).chmod(mode)
    (tmp_path / "link.py").symlink_to("closed/x.py")
    program = """
        from pathlib import Path
        from hpcdl.launch.submission.freeze import find_tree, freeze
        freeze(find_tree(Path("train.py"), None), Path("hpcdl-jobs/code").absolute())
    """
    done = run_python("-c", textwrap.dedent(program), cwd=tmp_path)
    assert done.stderr == ""
    target = tmp_path / "hpcdl-jobs" / "code"
    linked = sorted(path.name for path in target.iterdir() if path.is_symlink())
    assert linked == ["closed", "link.py", "secret.json"]
    assert (target / "listed" / "x.py").is_symlink()


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
