"""Every command of README.md is one that hpcdl takes. Workloads train for some steps; studies and jobs are planned.

What is fetched from a network is parsed by tests/launch/test_docs.py, and tried by the tests of data.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from hpcdl.common.bench import BenchSettings
from tests.bare import ROOT, environ_of_script
from tests.parallel.programs.cases import IS_KERAS_3
from tests.parallel.test_functions import MODULE

SHOWN = [
    shlex.split(line, comments=True)[1:]
    for line in (ROOT / "README.md").read_text().splitlines()
    if line.startswith("hpcdl ") and not line.startswith("hpcdl data fetch")  # which needs a network
]
SOME_STEPS = BenchSettings(steps=3)
pytestmark = pytest.mark.skipif(not IS_KERAS_3, reason="what a command is does not depend on Keras")


@pytest.mark.parametrize("argv", SHOWN, ids=" ".join)
def test_a_command_is_taken(argv, tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"status": "running"}')
    words = [*argv]
    if words[0] == "submit" or words[:2] == ["bench", "--np"]:
        words[1:1] = [] if "--dry-run" in words else ["--dry-run"]
    if words[0] == "train":
        words[1:1] = [] if "--oversubscribe" in words else ["--oversubscribe"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl", *words],
        cwd=tmp_path,
        env={**environ_of_script(draws=words[0] != "train"), **SOME_STEPS.to_environ()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == (1 if words[0] == "doctor" else 0), done.stderr  # this is not that site
    assert done.stdout
    if words[0] == "train":
        trained = [json.loads(record.read_text()) for record in tmp_path.rglob("run.json")]
        expected = ["running"] if "--dry-run" in words else ["done", "running"]  # beside that of `run`
        assert sorted(record["status"] for record in trained) == expected


def test_the_commands_that_make_up_a_day_are_shown():
    assert {"train", "show", "submit", "horovod"} <= {argv[0] for argv in SHOWN}


def test_every_page_is_linked_and_every_link_leads_somewhere():
    text = (ROOT / "README.md").read_text()
    links = set(re.findall(r"\[[^]]*\]\(([^):]+)\)", text))
    assert [link for link in links if not (ROOT / link).exists()] == []
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("[!.]*/README.md")]
    assert [name for name in (str(page.relative_to(ROOT)) for page in pages) if name not in links] == []
