"""While TensorFlow is loaded, Python does not go through all that there is again and again."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from hpcdl.runtime.collecting import leave_out_what_is_loaded, search_rarely
from tests.bare import environ_of_script

SCRIPT = """
import gc
if gc.get_threshold() == {usual}:
    raise SystemExit("the search is not rare while a script loads")
import hpcdl
run = hpcdl.init()
print("usual", gc.get_threshold() == {usual}, "spared", gc.get_freeze_count() > 100_000)
"""


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def usual():
    usual = gc.get_threshold()
    yield usual
    gc.unfreeze()
    gc.set_threshold(*usual)


def test_a_rank_loads_its_script_and_tensorflow_without_searching_and_searches_from_then_on(tmp_path, usual):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(usual=usual))
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl.runtime", str(script)],
        cwd=str(tmp_path),
        env=environ_of_script(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usual True spared True" in done.stdout


WRITER = """
class Writer:
    def __init__(self):
        self.file, self.again = open("written", "w"), self.write

    def write(self, text):
        self.file.write(text)

writer = Writer()
import hpcdl
run = hpcdl.init()
writer.write("all of it")
"""


def test_a_file_in_a_cycle_that_is_older_than_the_run_is_written_at_the_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WRITER)
    words = [sys.executable, "-W", "ignore", str(script)]
    subprocess.run(words, cwd=str(tmp_path), env=environ_of_script(), check=True, timeout=120)
    assert (tmp_path / "written").read_text() == "all of it"


def test_a_search_that_was_made_rare_is_as_usual_afterwards(usual):
    for _ in range(5):  # a process may try one start after the other
        search_rarely()
        assert 100 * usual[0] < gc.get_threshold()[0] < 10_000_000
    leave_out_what_is_loaded()
    assert gc.get_threshold() == usual


def test_a_threshold_of_the_users_stays(usual):
    search_rarely()
    gc.set_threshold(5000, 20, 20)
    leave_out_what_is_loaded()
    assert gc.get_threshold() == (5000, 20, 20)


def test_what_became_garbage_after_the_first_time_is_found():
    as_many_as_tensorflow_has = [[] for _ in range(200_000)]
    leave_out_what_is_loaded()
    assert gc.get_freeze_count() > len(as_many_as_tensorflow_has)
    cycle = Cycle()
    seen = weakref.ref(cycle)
    del cycle
    leave_out_what_is_loaded()
    gc.collect()
    assert seen() is None
