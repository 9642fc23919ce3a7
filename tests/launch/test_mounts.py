"""Which folders each machine has for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from hpcdl.launch.mounts import own_of_each_node

MOUNTS = (
    "/dev/sda1 / ext4 rw 0 0\nhome:/export /home nfs4 rw 0 0\ntmpfs /memory tmpfs rw 0 0\n"
    "server:/scratch /memory/scratch beegfs rw 0 0\n"
)


@pytest.mark.parametrize(
    ("folder", "own"),
    [
        ("/home/me", None),
        ("/data/me", None),  # a local disk, or one that this machine gives to others: nobody tells
        ("/tmp/me", "/tmp"),
        ("/dev/shm", "/dev/shm"),
        ("/memory/me", "a tmpfs"),
        ("/memory/scratch/me", None),
        ("/tmpdata", None),
    ],
)
def test_a_folder_is_judged_by_its_name_and_by_what_is_mounted_there(folder: str, own: Optional[str]) -> None:
    assert own_of_each_node(folder, MOUNTS) == own


def test_the_user_may_know_better() -> None:
    assert own_of_each_node("/tmp/shared/me", MOUNTS, "/tmp/shared") is None
    assert own_of_each_node("/tmp/shared2", MOUNTS, "/tmp/shared") == "/tmp"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/shm")
    assert own_of_each_node(str(tmp_path / "link" / "x"), MOUNTS, str(tmp_path)) == "/dev/shm"
