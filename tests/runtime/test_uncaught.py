"""An error of hpcdl's own ends a script by one line and its status, alone and under a bare mpirun."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bare import ROOT, needs_mpirun, under_mpirun

#: Every script begins with this.
PREAMBLE = """\
import atexit, os, socket, sys, time
from hpcdl.common.errors import BadInput, Diverged
from hpcdl.common.topology import read_topology
from hpcdl.runtime import uncaught
rank = read_topology(os.environ, "host").rank
"""
INSTALLED = PREAMBLE + "uncaught.install()\n"


def alone(script, environ=None):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HPCDL_DEBUG": "0", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("error", "status"), [("BadInput", 2), ("Diverged", 1)])
def test_an_error_of_hpcdl_is_one_line_with_its_status(error, status):
    script = f"{INSTALLED}atexit.register(print, 'tidied')\nraise {error}('the rule; the way out')"
    assert alone(script) == (status, "tidied\n", "hpcdl: the rule; the way out\n")


def test_debug_shows_the_traceback_too():
    status, _, err = alone(INSTALLED + "raise BadInput('the rule')", {"HPCDL_DEBUG": "1"})
    assert status == 2
    assert err.startswith("Traceback")
    assert err.endswith("hpcdl: the rule\n")


def test_other_errors_are_left_to_the_hook_before_it_and_installing_twice_is_once():
    script = f"""{PREAMBLE}
sys.excepthook = lambda kind, error, trace: print("mine:", error)
uncaught.install()
uncaught.install()
raise ValueError("no business of hpcdl's")"""
    assert alone(script) == (1, "mine: no business of hpcdl's\n", "")


def test_a_rank_whose_place_makes_no_sense_can_still_speak():
    script = INSTALLED + "os.environ['OMPI_COMM_WORLD_RANK'] = 'x'\nread_topology(os.environ, 'host')"
    status, _, err = alone(script)
    assert status == 2
    assert err.startswith("hpcdl: OMPI_COMM_WORLD_RANK must be")
    assert err.count("\n") == 1


@needs_mpirun
def test_what_all_ranks_meet_is_said_once_under_a_bare_mpirun(tmp_path):
    ended = under_mpirun(tmp_path, ["-c", INSTALLED + "raise BadInput('the rule; the way out')"], np=3)
    assert (ended.status, ended.said) == (2, ["hpcdl: the rule; the way out"])


@needs_mpirun
def test_a_rank_that_only_lost_its_connection_lets_the_cause_speak(tmp_path):
    script = f"""{INSTALLED}
if rank == 0:
    raise RuntimeError("Horovod has been shut down")
time.sleep(1)
raise ValueError("the cause")"""
    ended = under_mpirun(tmp_path, ["-c", script])
    assert (ended.status, ended.said) == (1, ["Traceback (most recent call last):"])
