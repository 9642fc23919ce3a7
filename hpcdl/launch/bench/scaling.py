"""A model of how throughput grows with replicas, fitted on small counts, to predict large ones.

The time of a step with a fixed batch per replica is

    t(p) = compute + exchange (p - 1)/p + waiting log2(p)

*compute* is what one replica needs; *exchange* the bytes over the bandwidth that backpropagation does not hide,
which in a ring grow as (p - 1)/p; *waiting* the latency of a tree, and that all wait for the slowest, whose
expected delay grows with the logarithm of their number when single delays fall off exponentially. No term is
negative. A few small counts cannot tell exchange and waiting apart, and the choice matters: (p - 1)/p has nearly
ended growing at 16 replicas. So compute with waiting is taken, the cautious form, and the others say how uncertain
a prediction is. A power law, a p^b, which explains nothing, is the baseline to beat, and as likely to be right far out.
The range of a prediction is that of all forms and the power law; each is fitted again with one measured point after
the other at either end of its interval, which the range follows (the points by their squares: each is off by itself),
and it is widened by the misfit.

Synopsis::

    model = fit([Measured(1, 39.7), Measured(2, 79.8, 78.0, 81.0), Measured(4, 136.0)])     # replicas, samples/s
    at = model.predict(64)
    at.samples_per_second, at.low, at.high, at.efficiency
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from hpcdl.common.errors import BadInput

Values = Any  # of numpy: one value for each count

#: What each term grows with, by the number of replicas.
_GROWTH: Mapping[str, Callable[[Values], Values]] = {
    "compute": lambda p: np.ones_like(p),
    "exchange": lambda p: (p - 1) / p,
    "waiting": np.log2,
}
_FORMS: Mapping[str, Tuple[str, ...]] = {
    "compute + waiting": ("compute", "waiting"),
    "compute + exchange": ("compute", "exchange"),
    "compute + exchange + waiting": ("compute", "exchange", "waiting"),
}
_TAKEN = "compute + waiting"
_LEAST_MISFIT = 0.02
POWER_LAW = "power law"


@dataclass(frozen=True)
class Measured:
    """Throughput at a count.

    Attributes:
        num_replicas: The count.
        samples_per_second: Of all replicas.
        low: Lower end of its interval; None: not known.
        high: Upper end.
    """

    num_replicas: int
    samples_per_second: float
    low: Optional[float] = None
    high: Optional[float] = None

    @property
    def ends(self) -> Tuple[float, ...]:
        """The ends of its interval, as far as they are known."""
        return tuple(end for end in (self.low, self.high) if end is not None)


@dataclass(frozen=True)
class Prediction:
    """Throughput at a count, with its range."""

    num_replicas: int
    samples_per_second: float
    low: float
    high: float
    efficiency: float


@dataclass(frozen=True)
class Curve:
    """One form, fitted.

    Attributes:
        form: Its name.
        coefficients: By term, in seconds for one sample of each replica; for the power law ``a`` and ``b``.
    """

    form: str
    coefficients: Mapping[str, float]

    def throughput(self, num_replicas: Values) -> Values:
        """Gives the samples/s at counts."""
        p = np.asarray(num_replicas, dtype=float)
        if self.form == POWER_LAW:
            return self.coefficients["a"] * p ** self.coefficients["b"]
        return p / sum(c * _GROWTH[term](p) for term, c in self.coefficients.items())


@dataclass(frozen=True)
class Fitted:
    """One form, fitted to the medians, and again with one point after the other at the ends of its interval.

    Attributes:
        curve: Fitted to the medians.
        at_ends: For each point.
    """

    curve: Curve
    at_ends: Tuple[Tuple[Curve, ...], ...]

    def range(self, num_replicas: int) -> Tuple[float, float]:
        """Gives how far the intervals of the points take the throughput at a count down, and up."""
        (middle,) = self.curve.throughput([num_replicas])
        down, up = 0.0, 0.0
        for of_point in self.at_ends:
            moved = [math.log(float(curve.throughput([num_replicas])[0]) / middle) for curve in of_point]
            down += min([0.0, *moved]) ** 2
            up += max([0.0, *moved]) ** 2
        return float(middle) * math.exp(-math.sqrt(down)), float(middle) * math.exp(math.sqrt(up))


@dataclass(frozen=True)
class Model:
    """All forms, fitted on the same counts, and the one that is taken.

    Attributes:
        curve: The one that is taken.
        baseline: The power law.
        fits: All of them, the power law too.
        misfit: Relative error of ``curve`` at the fitted counts, of one standard deviation; at least 2 %, since two
            counts can be fitted without any.
        fitted_replicas: The counts.
    """

    curve: Curve
    baseline: Curve
    fits: Tuple[Fitted, ...]
    misfit: float
    fitted_replicas: Tuple[int, ...]

    def predict(self, num_replicas: int) -> Prediction:
        """Predicts the throughput at a count."""
        (best,) = self.curve.throughput([num_replicas])
        lows, highs = zip(*(fitted.range(num_replicas) for fitted in self.fits))
        (one,) = self.curve.throughput([1])
        return Prediction(
            num_replicas,
            float(best),
            min(lows) / (1 + 2 * self.misfit),  # by the same factor as up: a rate is never negative
            max(highs) * (1 + 2 * self.misfit),
            float(best / (num_replicas * one)),
        )


def fit(measured: Sequence[Measured]) -> Model:
    """Fits all forms to the throughput at some counts, with a fixed batch per replica.

    Raises:
        BadInput: Fewer than two different counts, or values that are not positive.
    """
    points = _by_count(measured)
    fits = {name: _fit_with_ends(name, points) for name in (*_FORMS, POWER_LAW)}
    curve = fits[_TAKEN].curve
    degrees_of_freedom = max(1, len(points) - len(_FORMS[_TAKEN]))
    p, rates = _columns(points)
    misfit = float(np.sqrt(np.sum((curve.throughput(p) / rates - 1) ** 2) / degrees_of_freedom))
    return Model(
        curve,
        fits[POWER_LAW].curve,
        tuple(fits.values()),
        max(misfit, _LEAST_MISFIT),
        tuple(point.num_replicas for point in points),
    )


def _by_count(measured: Sequence[Measured]) -> List[Measured]:
    """Gives one point for each count, the smallest first; of several, what they span is its interval."""
    by_count: Dict[int, List[Measured]] = {}
    for point in measured:
        if point.num_replicas < 1 or not all(rate > 0 for rate in (point.samples_per_second, *point.ends)):
            raise BadInput(
                f"a count and its throughput must be positive; received {point.num_replicas} replicas,"
                f" {point.samples_per_second} samples/s"
            )
        by_count.setdefault(point.num_replicas, []).append(point)
    if len(by_count) < 2:
        raise BadInput(
            "a model needs at least 2 different counts of replicas; received"
            f" {', '.join(map(str, by_count)) or 'none'}; measure at more counts"
        )
    points = []
    for count, of_count in sorted(by_count.items()):
        rates = [point.samples_per_second for point in of_count]
        spanned = [*rates, *(end for point in of_count for end in point.ends)]
        points.append(Measured(count, float(np.median(rates)), min(spanned), max(spanned)))
    return points


def _columns(points: Sequence[Measured]) -> Tuple[Values, Values]:
    counts = np.array([point.num_replicas for point in points], dtype=float)
    return counts, np.array([point.samples_per_second for point in points])


def _fit_with_ends(name: str, points: Sequence[Measured]) -> Fitted:
    fit_one = _power_law if name == POWER_LAW else functools.partial(_fit_form, name)
    at_ends = []
    for i, point in enumerate(points):
        moved = [
            [*points[:i], replace(point, samples_per_second=end), *points[i + 1 :]] for end in point.ends
        ]
        at_ends.append(tuple(fit_one(*_columns(one)) for one in moved))
    return Fitted(fit_one(*_columns(points)), tuple(at_ends))


def _fit_form(name: str, p: Values, rates: Values) -> Curve:
    """Fits a form by least squares on relative errors, with no negative term."""
    terms = _FORMS[name]
    columns = np.stack([_GROWTH[term](p) * rates / p for term in terms], axis=1)
    best, least = {"compute": float(np.median(p / rates))}, np.inf
    # Few terms: of all subsets without a negative coefficient the one with the least error is the bounded optimum.
    for size in range(1, min(len(terms), len(p)) + 1):
        for chosen in itertools.combinations(range(len(terms)), size):
            coefficients, *_ = np.linalg.lstsq(columns[:, chosen], np.ones(len(p)), rcond=None)
            error = float(np.sum((columns[:, chosen] @ coefficients - 1) ** 2))
            if 0 in chosen and (coefficients >= 0).all() and error < least - 1e-15:
                best = {terms[i]: float(c) for i, c in zip(chosen, coefficients)}
                least = error
    return Curve(name, best)


def _power_law(p: Values, rates: Values) -> Curve:
    """Fits a power law to the logarithms; better than perfect scaling it does not promise, as the forms do not."""
    slope, _ = np.polyfit(np.log(p), np.log(rates), 1)
    b = min(1.0, float(slope))
    return Curve(POWER_LAW, {"a": float(np.exp(np.mean(np.log(rates) - b * np.log(p)))), "b": b})
