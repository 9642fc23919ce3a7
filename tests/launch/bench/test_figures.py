"""Figures: slow models keep their digits, nothing has an exponent, and a range is not called an interval."""

from __future__ import annotations

import pytest

from hpcdl.launch.bench.figures import three_digits, with_spread
from hpcdl.launch.bench.ratios import Estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (76912.4, "76912"),
        (769.4, "769"),
        (3.2, "3.20"),
        (0.41237, "0.412"),
        (-0.00123, "-0.00123"),
        (0.0, "0"),
    ],
)
def test_three_digits_count_whatever_the_size(value, text):
    assert three_digits(value) == text


def test_a_median_stands_with_its_interval_or_with_a_range_that_is_called_one():
    assert with_spread(Estimate(0.788, 0.706, 0.936, 7, 0.7, 0.95), 100) == "78.8 (70.6 to 93.6)"
    assert with_spread(Estimate(0.788, None, None, 3, 0.7, 0.95), 100) == "78.8 (range 70.0 to 95.0)"
    assert with_spread(Estimate(1.0, 1.0, 1.0, 9, 1.0, 1.0), 100) == "100"
    assert with_spread(Estimate(1.0, None, None, 1)) == "1.00"
