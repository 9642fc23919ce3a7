"""How much faster is A than B, and how sure is that: paired ratios over interleaved rounds.

In each round A and B are measured within a minute or two, so that a machine which drifts does so for both. The ratio of
a round is taken from its own pair. Reported is the median over the rounds, with the exact interval of the sign test:
from the k-th smallest to the k-th largest ratio, with the largest k that keeps 95 % (7 rounds: all of them; 9: without
the smallest and the largest; 12: without two at each end).

Why this one: it holds for whatever way the ratios scatter, so that from 9 rounds on one that something disturbed cannot
move it. Student's t on the logarithms widens without end then, Wilcoxon's signed-rank interval hardly less, and a
bootstrap of so few values is too narrow. Six rounds are the fewest that can give 95 %.

Synopsis::

    estimate = ratio([3200, 3150, ...], [2210, 2230, ...])     # samples/s of A and of B, round by round
    estimate.median, estimate.low, estimate.high
    estimate.verdict(goal=1.45)                                 # "met" or "missed"
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import List, Optional, Sequence, Tuple

#: The fewest rounds that can give an interval of 95 %.
FEWEST_ROUNDS = 6
#: The same of each of two that were not measured together.
FEWEST_UNPAIRED = 4
_ONE_IN = 20  # an interval of 95 % leaves out one in twenty; in whole numbers, since 2^n outgrows a float
#: From so many values on, the Mann-Whitney statistic is as good as normal.
_MANY = 60


@dataclass(frozen=True)
class Estimate:
    """A median with its interval; the interval is missing where there are too few rounds for one.

    Attributes:
        median: Over the rounds.
        low: Lower end of the 95 % interval.
        high: Upper end.
        num_rounds: How many there are.
        smallest: Of the values; None: it was not kept.
        largest: Of the values.
    """

    median: float
    low: Optional[float]
    high: Optional[float]
    num_rounds: int
    smallest: Optional[float] = None
    largest: Optional[float] = None

    @property
    def has_interval(self) -> bool:
        """Whether there are enough rounds for one."""
        return self.low is not None and self.high is not None

    @property
    def spread(self) -> Optional[Tuple[float, float]]:
        """The interval; where there is none, the range of the values; None where neither is known."""
        for low, high in ((self.low, self.high), (self.smallest, self.largest)):
            if low is not None and high is not None:
                return low, high
        return None

    def excludes(self, value: float) -> bool:
        """Whether the interval says that this is not the value; never without one."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def rest(self) -> Estimate:
        """Gives what is missing to 1."""
        ends = (self.high, self.low, self.largest, self.smallest)
        high, low, largest, smallest = (None if end is None else 1 - end for end in ends)
        return Estimate(1 - self.median, high, low, self.num_rounds, largest, smallest)

    def verdict(self, goal: float) -> str:
        """Says ``met`` where the interval reaches the goal, ``missed`` where it lies below."""
        reach = self.median if self.high is None else self.high
        return "met" if reach >= goal else "missed"

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.median:.3f} (no interval)"
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Estimates numerator / denominator from pairs."""
    if len(numerators) != len(denominators):
        raise ValueError(f"pairs are needed; received {len(numerators)} and {len(denominators)} values")
    return estimate([a / b for a, b in zip(numerators, denominators)])


def unpaired_ratio(
    numerators: Sequence[float], denominators: Sequence[float], num_ratios: int = 1
) -> Estimate:
    """Estimates numerator / denominator from values that were not measured together.

    The median of all quotients, with the interval of the Mann-Whitney test on the logarithms (Hodges and Lehmann 1963).
    It asks that both scatter alike, and knows nothing of a machine that changed in between.

    Args:
        numerators: Of the one.
        denominators: Of the other.
        num_ratios: Of how many ratios this is one, whose intervals are to hold all together with 95 % (Bonferroni).
    """
    if not numerators or not denominators:
        raise ValueError("values are needed; received none")
    quotients = sorted(a / b for a in numerators for b in denominators)
    num_rounds = min(len(numerators), len(denominators))
    outside = 0
    if num_rounds >= FEWEST_UNPAIRED:  # how one value would scatter is not known, however many the others are
        outside = _rank_sum_outside(len(numerators), len(denominators), _ONE_IN * num_ratios)
    low, high = (quotients[outside - 1], quotients[-outside]) if outside else (None, None)
    return Estimate(median(quotients), low, high, num_rounds, quotients[0], quotients[-1])


def _rank_sum_outside(n: int, m: int, one_in: int) -> int:
    """Gives the largest k with 2 P(U < k) <= 1 / one_in, where U is the Mann-Whitney statistic; 0 if there is none."""
    if n + m > _MANY:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return max(0, int(n * m / 2 - NormalDist().inv_cdf(1 - 1 / (2 * one_in)) * spread))
    ways, below = _rank_sum_ways(n, m), 0
    for k, count in enumerate(ways):
        below += count
        if 2 * one_in * below > math.comb(n + m, n):
            return k
    return len(ways)


def _rank_sum_ways(n: int, m: int) -> List[int]:
    """Counts the orders of n and m values by U: the coefficients of the Gaussian binomial (n + m over n)."""
    ways = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        # times (1 - q^(m + i)), then over (1 - q^i)
        for u in range(n * m, m + i - 1, -1):
            ways[u] -= ways[u - m - i]
        for u in range(i, n * m + 1):
            ways[u] += ways[u - i]
    return ways


def estimate(values: Sequence[float]) -> Estimate:
    """Gives the median of values with its interval."""
    if not values:
        raise ValueError("values are needed; received none")
    interval = median_interval(values)
    low, high = (None, None) if interval is None else interval
    return Estimate(median(values), low, high, len(values), min(values), max(values))


def median_interval(values: Sequence[float]) -> Optional[Tuple[float, float]]:
    """Gives the exact 95 % interval of the median; None for too few values.

    The k-th smallest lies above the true median if fewer than k values lie below it: P(Binomial(n, 1/2) < k).
    """
    n, outside = len(values), 0
    k = 0
    ways = 1  # n over k
    while k < n and 2 * _ONE_IN * (outside + ways) <= 2**n:
        outside += ways
        ways = ways * (n - k) // (k + 1)
        k += 1
    return (sorted(values)[k - 1], sorted(values)[n - k]) if k else None
