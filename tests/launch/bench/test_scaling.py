"""The cost model: formulas agree with their limits; fits find what made the data, and say how unsure they are."""

from __future__ import annotations

import math

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.exchange_times import bus_bandwidth
from hpcdl.launch.bench.cost import (
    ALGORITHMS,
    Link,
    allreduce_seconds,
    hierarchical_seconds,
)
from hpcdl.launch.bench.scaling import Measured, fit


def fitted(replicas, rates):
    return fit(list(map(Measured, replicas, rates)))


LINK = Link(alpha_s=5e-6, beta_s_per_byte=1e-10, gamma_s_per_byte=2e-11)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_rank_exchanges_nothing_and_more_bytes_or_ranks_take_longer(algorithm):
    assert allreduce_seconds(algorithm, 1e6, 1, LINK) == 0
    seconds = [allreduce_seconds(algorithm, 1e6, p, LINK) for p in (2, 4, 64, 1024)]
    assert seconds == sorted(seconds)
    assert allreduce_seconds(algorithm, 2e6, 8, LINK) > allreduce_seconds(algorithm, 1e6, 8, LINK)


def test_two_ranks_pay_the_published_formulas():
    assert allreduce_seconds("ring", 1e6, 2, LINK) == pytest.approx(2 * 5e-6 + 1e6 * (1e-10 + 1e-11))
    assert allreduce_seconds("ring", 1e6, 2, LINK) == allreduce_seconds("halving-doubling", 1e6, 2, LINK)
    assert allreduce_seconds("recursive-doubling", 1e6, 2, LINK) == pytest.approx(5e-6 + 1e6 * 1.2e-10)


def test_few_bytes_want_a_tree_and_many_bytes_a_ring():
    def best(num_bytes):
        return min(ALGORITHMS, key=lambda name: allreduce_seconds(name, num_bytes, 64, LINK))

    assert best(8) == "recursive-doubling"
    assert (
        allreduce_seconds("ring", 1e9, 64, LINK) < allreduce_seconds("recursive-doubling", 1e9, 64, LINK) / 2
    )


def test_a_hierarchy_of_one_node_is_its_ring_and_fast_links_inside_pay():
    inside = Link(1e-6, 1e-11)
    assert hierarchical_seconds(1e8, 8, 1, inside, LINK) == allreduce_seconds("ring", 1e8, 8, inside)
    assert hierarchical_seconds(1e8, 8, 16, inside, LINK) < allreduce_seconds("ring", 1e8, 128, LINK)


def test_bus_bandwidth_of_a_ring_without_latency_is_that_of_its_link():
    link = Link(0.0, 1 / 12.5e9)
    assert bus_bandwidth(1e8, 16, allreduce_seconds("ring", 1e8, 16, link)) == pytest.approx(12.5e9)


def throughput(p, compute=0.02, waiting=0.001):
    return p / (compute + waiting * math.log2(p))


def test_a_fit_finds_the_terms_that_made_the_data_and_predicts_far_outside():
    model = fitted([1, 2, 4, 8], [throughput(p) for p in (1, 2, 4, 8)])
    assert model.curve.coefficients == pytest.approx({"compute": 0.02, "waiting": 0.001})
    at = model.predict(27_360)
    assert at.samples_per_second == pytest.approx(throughput(27_360))
    assert at.low <= at.samples_per_second <= at.high
    assert at.efficiency == pytest.approx(0.02 / (0.02 + 0.001 * math.log2(27_360)))


def test_perfect_scaling_is_perfect_and_better_than_perfect_is_not_believed():
    assert fitted([1, 2, 4], [10, 20, 40]).predict(64).efficiency == pytest.approx(1.0)
    assert fitted([1, 2, 4], [10, 21, 44]).predict(64).efficiency == pytest.approx(1.0)


def test_the_range_grows_with_the_distance_from_what_was_measured():
    model = fitted([1, 2, 4, 8], [10.0, 19.5, 37.0, 70.0])
    near, far = model.predict(16), model.predict(1024)
    assert (far.high - far.low) / far.samples_per_second > (near.high - near.low) / near.samples_per_second


def test_the_range_holds_what_the_power_law_says_too():
    model = fitted([1, 2], [494.0, 769.0])
    at = model.predict(27_360)
    (power_law,) = model.baseline.throughput([27_360])
    assert power_law < 0.5 * at.samples_per_second
    assert at.low < power_law
    near = model.predict(4)
    assert near.low > 0.8 * near.samples_per_second


def test_the_range_grows_with_the_intervals_of_what_was_measured_but_not_what_is_predicted():
    rates = {1: 10.0, 2: 19.0, 4: 36.0, 8: 68.0}
    sure, unsure, very = (
        fit([Measured(n, rate, rate * (1 - of), rate * (1 + of)) for n, rate in rates.items()])
        for of in (0.0, 0.05, 0.2)
    )
    bare = fitted(list(rates), list(rates.values()))
    assert sure.predict(64) == bare.predict(64)
    found = [model.predict(64) for model in (sure, unsure, very)]
    assert len({at.samples_per_second for at in found}) == 1
    widths = [at.high / at.low for at in found]
    assert widths[0] < widths[1] < widths[2]
    assert all(at.low > 0 for at in found)
    # Each point is off by itself: one that is unsure widens it less than all four.
    one = fit([Measured(1, 10.0, 8.0, 12.0), *(Measured(n, rates[n]) for n in (2, 4, 8))]).predict(64)
    assert widths[0] < one.high / one.low < widths[2]


def test_no_range_promises_more_than_perfect_scaling():
    at = fitted([1, 2, 4], [10, 21, 44]).predict(27_360)
    assert at.high < 1.2 * 27_360 * 10.5


def test_no_range_reaches_below_nothing_however_bad_the_fit():
    at = fitted([1, 2, 4, 8], [100, 50, 300, 90]).predict(16)
    assert 0 < at.low < at.samples_per_second < at.high


def test_repeats_of_a_count_that_scatter_widen_the_range():
    near, far = ([10.0, 10.0, 10.1], [10.0, 8.0, 12.0])
    ranges = [fitted([1, 1, 1, 2], [*rates, 19.0]).predict(8) for rates in (near, far)]
    assert ranges[0].low > ranges[1].low


def test_repeats_of_a_count_are_taken_by_their_median():
    assert fitted([1, 1, 1, 2], [10, 10, 99, 20]).curve == fitted([1, 2], [10, 20]).curve


@pytest.mark.parametrize(
    ("replicas", "rates", "what"), [([4, 4], [1.0, 1.1], "at least 2"), ([1, 2], [0, 1], "positive")]
)
def test_what_no_model_can_be_fitted_to_is_refused(replicas, rates, what):
    with pytest.raises(BadInput, match=what):
        fitted(replicas, rates)
