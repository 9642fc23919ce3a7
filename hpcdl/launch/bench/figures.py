"""How figures are written: as many digits as say something, and the interval beside the median. Pure functions.

Synopsis::

    three_digits(0.41237), three_digits(76912.4)              # "0.412", "76912"
    with_spread(estimate, 100)                                # "78.8 (70.6 to 93.6)", "78.8 (range 75.0 to 80.1)"
"""

from __future__ import annotations

import math
from typing import Callable

from hpcdl.launch.bench.ratios import Estimate

_DIGITS = 3


def three_digits(value: float) -> str:
    """Writes a number with three digits that count, or all before its point; never with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def with_spread(
    estimate: Estimate, factor: float = 1.0, form: Callable[[float], str] = three_digits, unit: str = ""
) -> str:
    """Writes a median with its 95 % interval; with the range of the values where there are too few for one."""
    said = f"{form(factor * estimate.median)}{unit}"
    spread = estimate.spread
    if spread is None or spread[0] == spread[1]:  # a point is 100 % of itself, in every round
        return said
    low, high = (form(factor * end) for end in spread)
    return f"{said} ({'' if estimate.has_interval else 'range '}{low} to {high})"
