"""Where the time goes: the parts add up to the step, imbalance is no exchange, and a loss has its cause."""

from __future__ import annotations

import random

import pytest

from hpcdl.launch.bench.causes import Parts, losses, sentence, slowest_step, split
from hpcdl.launch.bench.ratios import Estimate


def test_ranks_that_are_slow_in_turn_make_imbalance_and_no_exchange():
    # Each rank takes 0.11 s on average, and every step has one that takes 0.12 s.
    control = [[0.10, 0.12] * 5, [0.12, 0.10] * 5]
    parts = split(slowest_step(control), control, None)
    assert (parts.compute_s, parts.imbalance_s, parts.exchange_s) == pytest.approx((0.11, 0.01, 0.0))
    assert parts.input_s is None
    assert split(0.15, control, None).exchange_s == pytest.approx(0.03)


def test_the_wait_for_the_slowest_of_many_is_that_of_its_maximum():
    # The mean of the largest of n exponential delays is the n-th harmonic number.
    draw = random.Random(0)
    control = [[1 + draw.expovariate(1) for _ in range(5000)] for _ in range(8)]
    parts = split(slowest_step(control) + 0.5, control, control)
    assert parts.imbalance_s == pytest.approx(sum(1 / k for k in range(2, 9)), rel=0.05)
    assert parts.exchange_s == pytest.approx(0.5)
    assert parts.input_s == pytest.approx(0.0)


def test_parts_add_up_to_the_step_and_losses_to_what_is_lost():
    baseline = Parts(0.090, 0.010, 0.0, 0.0)
    parts = split(0.125, [[0.100] * 4, [0.110] * 4], [[0.096] * 4, [0.106] * 4])
    assert parts.step_s == pytest.approx(0.125)
    lost = losses(parts, baseline, scale=1.0)
    assert sum(lost.values()) == pytest.approx(1 - 0.100 / 0.125)
    assert lost["exchange"] == pytest.approx(0.015 / 0.125)
    strong = losses(parts, Parts(0.190, 0.010, 0.0, 0.0), scale=0.5)
    assert sum(strong.values()) == pytest.approx(1 - 0.5 * 0.200 / 0.125)


def test_where_only_one_side_knows_its_input_the_sum_stays():
    lost = losses(Parts(0.100, 0.005, 0.0, 0.02), Parts(0.100, None, 0.0, 0.0), scale=1.0)
    assert set(lost) == {"compute", "imbalance", "exchange"}
    assert sum(lost.values()) == pytest.approx(0.025 / 0.125)


def sure(value, width=0.001, rounds=9):
    return Estimate(value, value - width, value + width, rounds, value - width, value + width)


def test_a_sentence_names_the_largest_cause_first_each_with_its_interval():
    lost = {"compute": sure(0.02), "input": sure(0.01), "imbalance": sure(0.03), "exchange": sure(0.14)}
    said = sentence(lost, sure(0.8), "weak")
    assert said.startswith(
        "20.0 % (19.9 to 20.1) of a step are lost; of it to the exchange of gradients 14.0 % (13.9 to 14.1), waiting"
        " for the slowest rank 3.0 % (2.9 to 3.1), slower computing"
    )
    assert "noise" not in said
    assert "fixed overhead" in sentence(lost, sure(0.8), "strong")


def test_what_noise_could_be_is_no_cause_however_large():
    lost = {"input": sure(0.08, 0.1), "imbalance": sure(0.065, 0.03), "exchange": sure(0.0, 0.0)}
    said = sentence(lost, sure(0.8), "weak")
    assert "of it to waiting for the slowest rank 6.5 % (3.5 to 9.5); not told from noise: waiting" in said
    assert "waiting for input 8.0 % (-2.0 to 18.0)" in said
    assert "exchange" not in said  # less than anybody asks for
    assert sentence({}, sure(0.98, 0.03), "weak") == "nothing is lost that could be told from noise"
    assert sentence({"compute": sure(-0.04)}, sure(1.04, 0.001), "weak") == (
        "nothing is lost that could be told from noise; gained in compute -4.0 % (-4.1 to -3.9)"
    )


def test_a_few_rounds_name_no_cause():
    few = {"exchange": Estimate(0.14, None, None, 3, 0.12, 0.16)}
    said = sentence(few, Estimate(0.8, None, None, 3, 0.79, 0.81), "weak")
    assert said == (
        "20.0 % (range 19.0 to 21.0) of a step are lost; too few rounds to tell noise from: the exchange of gradients"
        " 14.0 % (range 12.0 to 16.0)"
    )
