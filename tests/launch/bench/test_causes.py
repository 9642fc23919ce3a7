"""Where the time goes: the parts add up to the step, imbalance is no exchange, and a loss has its cause."""

from __future__ import annotations

import random

import pytest

from hpcdl.launch.bench.causes import Parts, losses, sentence, slowest_step, split


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


def test_a_sentence_names_the_largest_cause_first():
    lost = {"compute": 0.02, "input": 0.01, "imbalance": 0.03, "exchange": 0.14}
    said = sentence(lost, "weak")
    assert said.startswith(
        "20.0 % of a step are lost, most of it to the exchange of gradients: 14.0 %; waiting"
    )
    assert "waiting for the slowest rank 3.0 %" in said
    assert "fixed overhead" in sentence(lost, "strong")
    assert "nothing is lost" in sentence({"compute": -0.01, "exchange": 0.012}, "weak")
