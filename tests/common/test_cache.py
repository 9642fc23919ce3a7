"""hpcdl's cache is where its variable says, and in the home folder otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import pytest

from hpcdl.common.cache import cache_folder


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HPCDL_CACHE": "/scratch/me", "HOME": "/home/me"}, Path("/scratch/me")),
        ({"HPCDL_CACHE": "", "HOME": "/home/me"}, Path("/home/me/.cache/hpcdl")),
        ({"HPCDL_CACHE": "here"}, Path.cwd() / "here"),
        ({}, Path("~/.cache/hpcdl").expanduser()),
    ],
)
def test_the_cache_is_where_its_variable_says(environ: Dict[str, str], folder: Path) -> None:
    assert cache_folder(environ) == folder
