"""Foreign load: what others did is told from what the measurement did itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcdl.common.load import Busy, parse_stat, read_busy, side_by_side, span, wait_until_calm

STAT = """\
cpu  1357041 10 337073 2183578 11749 5 4974 2048 77 0
cpu0 598783 0 160520 1182439 2926 0 1802 1003 0 0
"""


def test_busy_time_leaves_out_idle_waiting_stolen_and_guest_time():
    assert parse_stat(STAT, 100) == ((1357041 + 10 + 337073 + 5 + 4974) / 100, 20.48)


def test_foreign_is_what_the_machine_did_beside_us_and_what_was_stolen():
    before = Busy(wall=0.0, machine=100.0, stolen=1.0, own=10.0)
    load = span(before, Busy(wall=10.0, machine=117.0, stolen=2.0, own=24.0), num_cores=2).load
    assert load.cores == pytest.approx(0.4)
    assert load.stolen == pytest.approx(0.1)
    assert not load.is_calm
    assert span(before, Busy(10.0, 114.5, 1.0, 24.0), num_cores=2).load.is_calm


def test_processes_that_are_measured_together_are_not_foreign_to_each_other():
    before = Busy(wall=0.0, machine=100.0, stolen=0.0, own=10.0)
    spans = [span(before, Busy(10.0, 119.0, 0.0, 10.0 + own), num_cores=2) for own in (9.0, 9.5)]
    assert [one.load.is_calm for one in spans] == [False, False]
    assert side_by_side(spans).load.cores == pytest.approx(0.05)


def test_the_work_of_children_that_were_waited_for_is_our_own():
    before = read_busy()
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    after = read_busy()
    assert after.own - before.own > 0.05
    assert after.machine - before.machine > 0.05


def test_waiting_ends_when_it_is_calm_and_gives_up_in_time():
    def machine(shares):
        clock = {"wall": 0.0, "machine": 0.0}
        left = list(shares)

        def sleep(seconds):
            clock["wall"] += seconds
            clock["machine"] += seconds * left.pop(0)

        return (lambda: Busy(clock["wall"], clock["machine"], 0.0, 0.0)), sleep, left

    read, sleep, left = machine([2.0, 1.0, 0.0, 2.0])
    assert wait_until_calm(60.0, read, sleep)
    assert left == [2.0]
    read, sleep, left = machine([2.0] * 10)
    assert not wait_until_calm(8.0, read, sleep)
    assert len(left) == 6
