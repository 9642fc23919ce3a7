"""The scripts in docs/examples, on two ranks, made short by their own arguments: each learns, and says so once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import hpcdl
from tests.bare import ROOT, environ_of_script
from tests.parallel.programs.cases import IS_KERAS_3

#: Script -> its arguments, the accuracy in percent that it must reach.
EXAMPLES = {
    "three_lines.py": (("--samples", "3000", "--epochs", "1"), 50),
    "custom_loop.py": (("--samples", "3000", "--epochs", "1"), 40),
    "files.py": (("--samples", "3000", "--epochs", "1"), 40),
    "several_inputs.py": (("--samples", "3000", "--epochs", "1"), 40),
    "transfer_learning.py": (("--samples", "3000", "--epochs", "1"), 40),
}
pytestmark = pytest.mark.skipif(not IS_KERAS_3, reason="what the scripts call is tried there by itself")


@pytest.mark.parametrize("script", sorted(EXAMPLES))
def test_an_example_learns_on_two_ranks(script, tmp_path):
    arguments, least = EXAMPLES[script]
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl", "train", "--np", "2", "--oversubscribe"]
        + [str(ROOT / "docs" / "examples" / script), *arguments],
        cwd=tmp_path,
        env=environ_of_script(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = re.findall(r"test accuracy ([\d.]+) %", done.stdout)
    assert float(accuracy) > least


@pytest.mark.parametrize("script", sorted(EXAMPLES))
def test_an_example_shows_what_a_user_may_write(script):
    text = (ROOT / "docs" / "examples" / script).read_text()
    assert set(re.findall(r"^(?:import|from) (hpcdl\S*)", text, re.MULTILINE)) == {"hpcdl"}
    assert set(re.findall(r"\bhpcdl\.(\w+)\(", text)) <= set(hpcdl.__all__)
    assert "run_dir=" not in text  # on other ranks it is another run, as the batch is of each replica


def test_every_example_is_tried():
    assert {path.name for path in (ROOT / "docs" / "examples").glob("*.py")} == set(EXAMPLES)
