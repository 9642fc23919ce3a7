"""A run stops early enough, and a signal does no more than to be noted."""

from __future__ import annotations

import os
import signal

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.stopping import StopSignals, TimeLeft, Wishes, end_time


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_noted_also_twice_and_the_first_counts(number):
    before = signal.getsignal(number)
    signals = StopSignals()
    with signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_warning_before_the_fit_is_noted_for_it(number, before):
    plain = signal.signal(number, before)
    try:
        signals = StopSignals()
        signals.listen()
        os.kill(os.getpid(), number)
        with signals:
            assert signals.received == number
    finally:
        signal.signal(number, plain)


def test_a_handler_of_the_scripts_own_stays():
    seen = []
    plain = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        signals = StopSignals()
        signals.listen()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (seen, signals.received) == ([signal.SIGUSR1], None)
    finally:
        signal.signal(signal.SIGUSR1, plain)


@pytest.mark.parametrize(
    ("environ", "given", "expected"),
    [
        ({}, None, None),
        ({"SLURM_JOB_END_TIME": "1700000000"}, None, 1.7e9),
        ({"SLURM_JOB_END_TIME": "1700000000"}, 5.0, 5.0),
        ({"SLURM_JOB_END_TIME": "Unknown"}, None, None),
        ({"HPCDL_END_TIME": "1700000000"}, None, 1.7e9),
        ({"HPCDL_END_TIME": "1700000000.5"}, None, 1700000000.5),
        ({"HPCDL_END_TIME": "1700000000", "SLURM_JOB_END_TIME": "1700000060"}, None, 1.7e9),
    ],
)
def test_the_users_end_time_wins_over_the_keepers_and_that_over_slurms(environ, given, expected):
    assert end_time(environ, given) == expected


def test_an_end_time_that_is_none_is_refused():
    with pytest.raises(BadInput, match="HPCDL_END_TIME must be in seconds since 1970; received 'tomorrow'"):
        end_time({"HPCDL_END_TIME": "tomorrow"}, None)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_it_is_time_to_stop_when_a_pause_and_a_checkpoint_would_no_longer_fit():
    clock = Clock()
    left = TimeLeft(1100.0, clock)
    assert not left.is_over()
    clock.now += 20  # a validation
    assert not left.is_over()
    left.note_save(5.0)
    assert left.margin_s == 10 + 2 * (20 + 5)
    clock.now = 1100 - left.margin_s - 1
    assert not left.is_over()
    clock.now += 2
    assert left.is_over()


def test_the_time_of_a_checkpoint_is_no_pause():
    clock = Clock()
    left = TimeLeft(None, clock)
    left.is_over()
    clock.now += 30
    left.note_save(30.0)
    clock.now += 1
    left.is_over()
    assert left.margin_s == 10 + 2 * (30 + 1)


def test_an_end_in_the_past_is_refused():
    clock = Clock()
    with pytest.raises(BadInput, match="which is -100 s from now"):
        TimeLeft(900.0, clock).check()
    TimeLeft(None, clock).check()
    TimeLeft(1100.0, clock).check()


def test_a_look_before_the_first_step_is_no_chance_to_stop():
    clock = Clock()
    left = TimeLeft(1100.0, clock)
    assert not left.is_too_short()
    clock.now += 20  # Keras compiles
    assert not left.is_over()
    assert left.margin_s == 10
    clock.now = 1095
    assert left.is_too_short()
    assert not TimeLeft(None, clock).is_too_short()


def test_signals_know_whether_they_were_of_a_fit_before():
    signals = StopSignals()
    assert not signals.had_a_fit
    with signals:
        pass
    assert signals.had_a_fit


def test_alone_a_wish_needs_no_exchange():
    wishes = Wishes(Alone())
    assert not wishes.must_ride
    wishes.set("leave", True)
    assert wishes.agreed("leave")
    assert not wishes.agreed("save")
    wishes.set("leave", False)
    wishes.hear_now()
    assert not wishes.agreed("leave")
