"""The blocks of docs/python-api.md are one script that works, alone and on two ranks; all public names are in it."""

from __future__ import annotations

import re

import pytest

import hpcdl
from hpcdl.runtime.training import Run
from tests.bare import ROOT
from tests.parallel.launching import run_hpcdl
from tests.parallel.programs.cases import IS_KERAS_3

PAGE = (ROOT / "docs" / "python-api.md").read_text()


@pytest.mark.parametrize("world", [(), ("--np", "2", "--oversubscribe")], ids=["alone", "two ranks"])
@pytest.mark.skipif(not IS_KERAS_3, reason="what the page calls is tried there by itself")
def test_the_page_is_a_script_that_works(world, tmp_path):
    (tmp_path / "page.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    said = run_hpcdl(["train", *world, "page.py"], tmp_path, timeout_s=300).splitlines()
    assert said.count("said once") == 1
    assert sum(line.startswith("a batch size must say of what") for line in said) == 1
    assert (tmp_path / "api.keras").is_file()
    assert (tmp_path / "runs" / "api" / "run.json").is_file()


def test_every_public_name_is_on_the_page():
    names = [name for name in dir(Run) if not name.startswith("_")]
    assert {"fit", "save", "average_gradients"} <= set(names)
    assert [name for name in names if f"run.{name}" not in PAGE] == []
    assert [name for name in hpcdl.__all__ if f"hpcdl.{name}" not in PAGE] == []
