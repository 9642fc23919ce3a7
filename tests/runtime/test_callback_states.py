"""What callbacks remember survives a stop; what the script sets does not."""

from __future__ import annotations

import numpy as np

from hpcdl.runtime.callback_states import CallbackStates


class Patient:
    """Such as EarlyStopping."""

    def __init__(self, patience):
        self.patience, self.wait, self.best, self.model = patience, 0, np.inf, object()
        self.best_weights, self.seen, self.function = None, [], max


class Other:
    pass


def test_what_changed_comes_back_and_settings_stay_the_scripts():
    first = [Patient(3), Other(), Patient(5)]
    states = CallbackStates(first)
    states.begin()
    first[2].wait, first[2].best, first[2].seen = 4, np.float32(0.25), [0.5, 0.25]
    first[2].best_weights = [np.arange(3.0), np.ones((2, 2))]
    values, arrays = states.capture()
    assert values == {"Patient-1": {"wait": 4, "best": 0.25, "seen": [0.5, 0.25]}}

    second = [Patient(3), Other(), Patient(7)]
    states = CallbackStates(second)
    states.begin()
    assert states.restore(values, arrays) == []
    assert (second[2].wait, second[2].best, second[2].patience) == (4, 0.25, 7)
    np.testing.assert_array_equal(second[2].best_weights[0], np.arange(3.0))
    np.testing.assert_array_equal(second[2].best_weights[1], np.ones((2, 2)))
    assert second[0].wait == 0


def test_arrays_of_objects_are_left_out_since_they_would_be_pickled():
    first = Patient(1)
    states = CallbackStates([first])
    states.begin()
    first.best_weights = [np.arange(3.0), np.array([1, "a", None], dtype=object)]
    assert states.capture() == ({}, {})


def test_a_callback_that_is_gone_is_named():
    first = Patient(1)
    states = CallbackStates([first])
    states.begin()
    first.wait = 1
    values, arrays = states.capture()
    now = CallbackStates([Other()])
    now.begin()
    assert now.restore(values, arrays) == ["Patient-0"]
