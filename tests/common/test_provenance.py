"""Where a number comes from: git's files tell the commit, secrets stay out, and only what matters is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hpcdl.common.provenance import Source, environment_that_matters, read_source
from hpcdl.launch.git import source_of

COMMIT = "3f" * 20


def read_source_of(environ, package=Path("/nowhere/hpcdl")):
    return read_source(package, environ)


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *name, *words], cwd=str(folder), check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_launchers_word_travels_whole():
    for is_changed in (True, False, None):
        source = Source(COMMIT, is_changed)
        assert read_source_of(source.to_environ()) == source


def test_a_checkout_tells_its_commit_and_git_whether_the_package_was_changed(tmp_path):
    package = tmp_path / "hpcdl"
    package.mkdir()
    (package / "a.py").write_text("1")
    assert read_source_of({}, package) is None
    assert source_of(package) is None
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert read_source_of({}, package) == Source(commit, None)
    assert source_of(package) == Source(commit, False)
    (tmp_path / "notes.txt").write_text("no code")
    assert source_of(package) == Source(commit, False)
    (package / "a.py").write_text("2")
    assert source_of(package) == Source(commit, True)
    git(tmp_path, "pack-refs", "--all")
    assert read_source_of({}, package) == Source(commit, None)
    git(tmp_path, "worktree", "add", "../other")
    assert read_source_of({}, tmp_path.parent / "other" / "hpcdl") == Source(commit, None)
    git(tmp_path, "checkout", "--detach")
    assert read_source_of({}, package) == Source(commit, None)


def test_a_package_inside_somebody_elses_repository_is_no_checkout(tmp_path):
    package = tmp_path / "site-packages" / "hpcdl"
    package.mkdir(parents=True)
    git(tmp_path, "init")
    assert source_of(package) is None
    assert read_source_of({}, package) is None


def test_of_the_environment_is_kept_what_matters_without_its_secrets():
    environ = {
        "OMP_NUM_THREADS": "4",
        "HOROVOD_SECRET_KEY": "hidden",
        "HPCDL_DATA": "s3://user:hidden@host/data",
        "HOME": "/home/a",
        "TF_FLAGS": "--a=1 --b=2",
        "TF_DATA_EXPERIMENT_OPT_IN": "all",
        "TF_DATA_DIR": "of Terraform",
        "TF_VAR_database": "of Terraform",
    }
    assert environment_that_matters(environ) == {
        "HOROVOD_SECRET_KEY": "(removed)",
        "HPCDL_DATA": "s3://(removed)@host/data",
        "OMP_NUM_THREADS": "4",
        "TF_DATA_EXPERIMENT_OPT_IN": "all",
        "TF_FLAGS": "--a=1 --b=2",
    }
