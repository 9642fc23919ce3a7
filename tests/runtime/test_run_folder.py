"""The folder of a run: what leads from it to what others keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.runtime.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    found = RunFolder(tmp_path / "runs" / "first")
    found.open({}, False, None)
    yield found
    found.close()


def logs_of(start: str, tmp_path: Path) -> str:
    logs = tmp_path / "hpcdl-logs" / start
    logs.mkdir(parents=True)
    (logs / "rank-0007.log").write_text(start)
    return str(logs)


def test_logs_are_those_of_the_last_start_also_when_all_has_moved(folder: RunFolder, tmp_path: Path) -> None:
    for start in ("first", "second"):
        folder.link_logs(logs_of(start, tmp_path))
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    os.replace(str(tmp_path), str(moved))
    assert (moved / "runs" / "first" / "logs" / "rank-0007.log").read_text() == "second"


def test_logs_that_lie_in_the_run_folder_stay(folder: RunFolder, tmp_path: Path) -> None:
    own = folder.path / "logs"
    own.mkdir()
    folder.link_logs(str(own))
    folder.link_logs(logs_of("other", tmp_path))
    assert own.is_dir()
    assert not own.is_symlink()


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_folder_that_has_lost_its_record_is_still_a_run(tmp_path: Path, is_fresh: bool) -> None:
    run = tmp_path / "run"
    for name in ("checkpoints", "steps", "fit-2"):
        (run / name).mkdir(parents=True)
    # A kill may leave what was being written under its temporary name.
    for name in ("history.csv", "curves.png", ".run.json.tmp", ".curves.tmp.png", ".model.tmp.keras"):
        (run / name).touch()
    folder = RunFolder(run)
    assert folder.open({}, is_fresh, None) is None
    folder.close()
    assert (run / "curves.png").exists() != is_fresh


@pytest.mark.parametrize("name", ["thesis.tex", "fit-two"])
def test_a_folder_of_other_things_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BadInput, match=f"must be new, or hold a run; received .*no run.json but {name}"):
        RunFolder(tmp_path).open({}, False, None)


def test_a_run_without_a_launcher_has_none(folder: RunFolder) -> None:
    folder.link_logs(None)
    assert not (folder.path / "logs").exists()
