"""The blocks of docs/python-api.md are one script that works, alone and on two ranks, and uses every name of a run."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import hpcdl
from hpcdl.runtime.training import Run
from tests.bare import ROOT
from tests.parallel.launching import run_hpcdl
from tests.parallel.programs.cases import IS_KERAS_3

PAGE = (ROOT / "docs" / "python-api.md").read_text()
SCRIPT = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("world", [(), ("--np", "2", "--oversubscribe")], ids=["alone", "two ranks"])
@pytest.mark.skipif(not IS_KERAS_3, reason="what the page calls is tried there by itself")
def test_the_page_is_a_script_that_works(world, tmp_path):
    (tmp_path / "page.py").write_text(SCRIPT)
    said = run_hpcdl(["train", *world, "page.py"], tmp_path, timeout_s=300).splitlines()
    assert said.count("said once") == 1
    assert sum(line.startswith("a batch size must say of what") for line in said) == 1
    size, strategy = (2, "horovod") if world else (1, "single")
    assert (
        len([line for line in said if re.fullmatch(rf"rank 0 of {size} on \S+: 1 of {size} replicas", line)])
        == 1
    )
    assert (tmp_path / "notes.txt").read_text() == f"{strategy} 1\n"
    assert len([line for line in said if re.fullmatch(r"record in runs/api, \d+ samples/s", line)]) == 1
    assert (tmp_path / "api.keras").is_file()
    assert (tmp_path / "runs" / "api" / "run.json").is_file()


def test_every_public_name_is_in_the_script_and_every_error_on_the_page():
    methods = {name for name in dir(Run) if not name.startswith("_")}
    sources = [inspect.getsource(kind.__init__) for kind in Run.__mro__[:-1]]
    attributes = {name for text in sources for name in re.findall(r"self\.([a-z]\w*)[^\n=]* = ", text)}
    assert {"fit", "save", "average_gradients"} <= methods
    assert {"topology", "run_dir", "seed"} <= attributes
    nodes = [node for node in ast.walk(ast.parse(SCRIPT)) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "run"}
    assert (methods | attributes) - used == set()
    assert [name for name in methods | attributes if f"run.{name}" not in PAGE] == []
    assert [name for name in hpcdl.__all__ if f"hpcdl.{name}" not in PAGE] == []
