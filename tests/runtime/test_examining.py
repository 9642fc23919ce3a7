"""Ranks of the doctor's job find out whether their nodes share a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from hpcdl.runtime.examining.shared import look_for_shared, tidy_shared

ROOT = Path(__file__).resolve().parents[2]


def _look(folders_of_ranks: List[List[str]], status_dir: Path) -> List[List[Optional[str]]]:
    """Lets ranks look at once; a folder of another name stands for another node's own under the same."""
    found: Dict[int, List[Optional[str]]] = {}

    def rank_looks(rank: int) -> None:
        found[rank] = look_for_shared(folders_of_ranks[rank], status_dir, rank, appears_s=0.3)
        (status_dir / f"seen-{rank:04d}.json").write_text("{}")
        if rank == 0:
            tidy_shared(folders_of_ranks[0], status_dir, len(folders_of_ranks))

    threads = [threading.Thread(target=rank_looks, args=(rank,)) for rank in range(len(folders_of_ranks))]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in sorted(found)]


def test_a_folder_that_each_node_has_for_itself_is_told_and_one_that_they_share_is_not(
    tmp_path: Path,
) -> None:
    for name in ("logs", "shared", "node1", "node2"):
        (tmp_path / name).mkdir()
    shared, one, two = (str(tmp_path / name) for name in ("shared", "node1", "node2"))
    found = _look([[shared, one], [shared, one], [shared, two]], tmp_path / "logs")
    assert found == [[None, None], [None, None], [None, "what rank 0 writes there is not seen here"]]
    assert [list((tmp_path / name).iterdir()) for name in ("shared", "node1", "node2")] == [[], [], []]


def test_a_folder_in_which_rank_0_cannot_write_is_no_fault_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert _look([[str(tmp_path / "none")], [str(tmp_path)]], tmp_path / "logs") == [[None], [None]]


def test_ranks_do_not_wait_for_ever_for_rank_0(tmp_path: Path) -> None:
    assert look_for_shared([str(tmp_path)], tmp_path, rank=1, wait_s=0.2) == [None]


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_quick_look_of_two_ranks_says_it_in_what_they_saw(tmp_path: Path, is_shared: bool) -> None:
    for name in ("logs", "run", "other"):
        (tmp_path / name).mkdir()
    program = [
        sys.executable,
        "-m",
        "hpcdl.runtime",
        str(ROOT / "hpcdl/runtime/examining/ranks.py"),
        "--quick",
    ]
    ranks = []
    for rank in range(2):
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "HPCDL_STATUS_DIR": str(tmp_path / "logs")}
        place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        environ.update({f"HPCDL_{name}": str(value) for name, value in place.items()})
        folder = tmp_path / ("run" if is_shared or rank == 0 else "other")
        ranks.append(subprocess.Popen([*program, str(folder)], env=environ))
    assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    seen = [json.loads((tmp_path / "logs" / f"seen-{rank:04d}.json").read_text()) for rank in range(2)]
    assert [one["local_rank"] for one in seen] == [0, 0]
    problems = [problem for one in seen for problem in one["folders"].values()]
    assert problems == [None, None if is_shared else "what rank 0 writes there is not seen here"]
