"""The folder of a run: what leads from it to what others keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

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


def test_a_run_without_a_launcher_has_none(folder: RunFolder) -> None:
    folder.link_logs(None)
    assert not (folder.path / "logs").exists()
