"""Quotas are read from what quota and lfs print, and only for the file system that a folder is in."""

from __future__ import annotations

from typing import Optional, Sequence

import pytest

from hpcdl.launch.doctor.quota import Quota, mount_of, parse_rows, read_quota

MOUNTS = (
    "/dev/sda1 / ext4 rw 0 0\n10.0.0.1@o2ib:/ocean /ocean lustre rw 0 0\nhome:/export /jet/home nfs4 rw 0 0\n"
)
QUOTA = """\
Disk quotas for user me (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
   home:/export 1000000  24000000 25000000          4000  90000  100000
"""
LUSTRE = "         /ocean 2000000* 1000000 1500000 6d23h 12 0 0 -\n"
LONG = "/ocean/projects/with/a/long/name\n          2000000       0 4000000       -      12       0       0       -\n"


def test_the_lower_limit_that_is_set_counts_and_a_star_or_a_long_name_does_not_confuse() -> None:
    ((name, quota),) = parse_rows(QUOTA)
    assert name == "home:/export"
    assert (quota.used_gb, quota.limit_gb, quota.files, quota.limit_files) == (1.024, 24.576, 4000, 90000)
    assert quota.describe() == "quota 1.0 of 24.6 GB, 4000 of 90000 files"
    ((_, over),) = parse_rows(LUSTRE)
    assert over.free_gb is not None
    assert over.free_gb < 0
    assert (over.files, over.limit_files, over.free_files) == (12, None, None)
    assert parse_rows(LONG) == [("/ocean/projects/with/a/long/name", Quota(2.048, 4.096, 12, None))]
    assert parse_rows("Disk quotas for user me (uid 1000): none\n") == []


@pytest.mark.parametrize(
    ("folder", "asked", "text", "used_gb"),
    [
        ("/ocean/me", "lfs", LUSTRE, 2.048),
        ("/jet/home/me", "quota", QUOTA, 1.024),
        ("/tmp", "quota", QUOTA, None),  # of another file system
    ],
)
def test_each_kind_of_file_system_is_asked_in_its_own_way(
    folder: str, asked: str, text: str, used_gb: Optional[float]
) -> None:
    def printed(argv: Sequence[str]) -> str:
        assert argv[0] == asked
        return text

    quota = read_quota(folder, "me", printed, which=lambda name: "/usr/bin/" + name, mounts=MOUNTS)
    assert (quota.used_gb if quota else None) == used_gb


def test_where_nobody_tells_nothing_is_known() -> None:
    def silent(argv: Sequence[str]) -> str:
        return ""

    assert read_quota("/ocean/me", "me", silent, which=lambda name: None, mounts=MOUNTS) is None
    assert read_quota("/ocean/me", "me", silent, which=lambda name: "/bin/x", mounts=MOUNTS) is None
    assert mount_of("/oceanic", MOUNTS) == ("/dev/sda1", "ext4")
