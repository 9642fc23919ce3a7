"""What a benchmark looks at: the clocks of the nodes in the timed steps, and nothing before them."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf

from hpcdl.common.load import Span
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.watches import LoadWatch

keras = tf.keras


class TwoRanks(Alone):
    """A world in which rank 0 has seen what this rank has, on the node that is named."""

    size = 2

    def __init__(self, hostname):
        self.hostname = hostname

    def gather_json(self, value):
        return [[self.hostname, value[1]], value]


def fit(watch, epochs=2, num_steps=5):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = tf.zeros((num_steps, 2)), tf.zeros((num_steps, 1))
    model.fit(*data, batch_size=1, epochs=epochs, verbose=0, callbacks=[watch])
    return watch


def test_the_clocks_run_from_the_first_timed_step_to_the_end():
    began = time.monotonic()
    (seen,) = fit(LoadWatch(7, 5, "n1")).found(Alone())["clocks"].values()
    assert 0 < seen["seconds"] < time.monotonic() - began
    assert 0 <= seen["own"] < 60
    assert Span(**seen).load.cores >= 0


def test_ranks_of_one_node_are_one_and_others_stand_for_themselves():
    watch = fit(LoadWatch(0, 5, "n1"))
    (one,) = watch.found(Alone())["clocks"].values()
    (of_both,) = watch.found(TwoRanks("n1"))["clocks"].values()
    assert of_both["own"] == pytest.approx(2 * one["own"])
    assert of_both["machine"] == one["machine"]
    assert watch.found(TwoRanks("n0"))["clocks"] == {"n0": one, "n1": one}


def test_where_the_timed_steps_were_not_reached_nothing_is_known():
    assert fit(LoadWatch(10, 5, "n1")).found(Alone()) == {"clocks": {}}
