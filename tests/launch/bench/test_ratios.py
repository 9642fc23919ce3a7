"""Ratios: the interval covers what it says, shrugs off a bad round, and never leaves its median."""

from __future__ import annotations

import random

import pytest

from hpcdl.launch.bench.ratios import FEWEST_ROUNDS, Estimate, median_interval, ratio, unpaired_ratio


def test_the_interval_leaves_out_as_many_values_as_the_sign_test_allows():
    # Tables of the binomial distribution: the largest k with 2 P(Binomial(n, 1/2) < k) <= 5 %.
    for n, k in ((6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6)):
        assert median_interval([float(i) for i in range(n, 0, -1)]) == (k, n + 1 - k)


def test_many_values_are_no_trouble():
    low, high = median_interval([float(i) for i in range(5000)])
    assert (low, high) == pytest.approx((2430, 2570), abs=5)  # n / 2 -+ 1.96 sqrt(n) / 2
    found = unpaired_ratio([1.0 + i / 1000 for i in range(60)], [1.0 + i / 1000 for i in range(60)])
    assert found.low < 1 < found.high


def test_too_few_rounds_give_no_interval():
    assert median_interval([0.1] * (FEWEST_ROUNDS - 1)) is None
    assert median_interval([0.1] * FEWEST_ROUNDS) is not None
    assert ratio([2.0], [1.0]) == Estimate(2.0, None, None, 1, 2.0, 2.0)
    assert "no interval" in str(ratio([2.0], [1.0]))


@pytest.mark.parametrize("n", [7, 9, 12])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(n):
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):  # lopsided noise: some rounds are slowed down a lot
        a = [1.2 / (1 + draw.expovariate(20)) for _ in range(n)]
        b = [1.0 / (1 + draw.expovariate(20)) for _ in range(n)]
        found = ratio(a, b)
        assert found.low <= found.median <= found.high
        covered += found.low <= 1.2 <= found.high
    assert covered / 2000 >= 0.945


def test_drift_that_hits_both_alike_does_not_count():
    drift = [1, 2, 0.5, 4, 1, 3, 0.25]
    found = ratio([3 * d for d in drift], [2 * d for d in drift])
    assert (found.low, found.median, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_one_disturbed_round_of_nine_does_not_move_the_interval():
    calm = [1.00, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99]
    disturbed = ratio([*calm, 5.0], [1.0] * 9)
    assert (disturbed.low, disturbed.median, disturbed.high) == (0.99, 1.0, 1.02)


def test_the_rest_to_one_keeps_its_interval_and_only_an_interval_excludes():
    found = ratio([0.7, 0.8, 0.9] * 3, [1.0] * 9)
    rest = found.rest()
    assert (rest.median, rest.low, rest.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (rest.smallest, rest.largest) == pytest.approx((0.1, 0.3))
    assert rest.excludes(0.0)
    assert not rest.excludes(0.15)
    few = ratio([0.7, 0.8, 0.9], [1.0] * 3)
    assert not few.excludes(0.0)
    assert few.spread == (0.7, 0.9)


def test_a_goal_is_met_where_the_interval_reaches_it():
    assert Estimate(0.99, 0.97, 1.01, 9).verdict(1.0) == "met"
    assert Estimate(0.97, 0.95, 0.99, 9).verdict(1.0) == "missed"
    assert Estimate(1.02, None, None, 1).verdict(1.0) == "met"


def test_the_unpaired_interval_has_the_tabled_critical_values():
    # Mann and Whitney's tables, two-sided 5 %: U is 2 for 5 and 5 values, 5 for 6 and 6, 17 for 9 and 9.
    for n, critical in ((5, 2), (6, 5), (9, 17)):
        numerators = [2.0 ** (100 * i) for i in range(n)]
        denominators = [1 + i / 100 for i in range(n)]
        quotients = sorted(a / b for a in numerators for b in denominators)
        found = unpaired_ratio(numerators, denominators)
        assert (found.low, found.high) == (quotients[critical], quotients[-critical - 1])
    assert unpaired_ratio([1.0] * 3, [1.0] * 3).low is None


@pytest.mark.parametrize(("few", "num_ratios"), [(1, 1), (3, 1), (4, 500)])
def test_too_few_values_beside_many_give_no_interval_rather_than_an_inverted_one(few, num_ratios):
    many = [1.0 + i / 1000 for i in range(60)]
    found = unpaired_ratio([0.97] * few, many, num_ratios)
    assert (found.low, found.high) == (None, None)


def test_the_unpaired_interval_covers_the_true_ratio_as_often_as_it_says():
    draw = random.Random(1)
    covered = 0
    for _ in range(1000):
        a = [1.1 / (1 + draw.expovariate(20)) for _ in range(7)]
        b = [1.0 / (1 + draw.expovariate(20)) for _ in range(9)]
        found = unpaired_ratio(a, b)
        covered += found.low <= 1.1 <= found.high
    assert covered / 1000 >= 0.935


def test_several_ratios_hold_together_with_wider_intervals():
    draw = random.Random(2)
    a, b = ([draw.gauss(1, 0.05) for _ in range(9)] for _ in "ab")
    alone, one_of_ten = unpaired_ratio(a, b), unpaired_ratio(a, b, num_ratios=10)
    assert one_of_ten.low < alone.low < alone.median == one_of_ten.median < alone.high < one_of_ten.high
    assert unpaired_ratio(a[:4], b[:4]).has_interval
    assert not unpaired_ratio(a[:4], b[:4], num_ratios=2).has_interval


def test_values_without_a_partner_and_no_values_at_all_are_refused():
    for pairs in (([1.0, 2.0], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="needed"):
            ratio(*pairs)
