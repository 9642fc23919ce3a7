"""A model of how throughput grows with replicas, fitted on small counts, to predict large ones.

The time of a step with a fixed batch per replica is

    t(p) = compute + exchange (p - 1)/p + waiting log2(p)

*compute* is what one replica needs; *exchange* the bytes over the bandwidth that backpropagation does not hide,
which in a ring grow as (p - 1)/p; *waiting* the latency of a tree, and that all wait for the slowest, whose
expected delay grows with the logarithm of their number when single delays fall off exponentially. No term is
negative. A few small counts cannot tell exchange and waiting apart, and the choice matters: (p - 1)/p has nearly
ended growing at 16 replicas. So compute with waiting is taken, the cautious form, and the others say how uncertain
a prediction is: it is given with the range over all forms, widened by the misfit. A power law, a p^b, which
explains nothing, is the baseline to beat.

Synopsis::

    model = fit([1, 2, 4, 8], [39.7, 79.8, 136.0, 221.0])            # replicas, samples/s
    at = model.predict(64)
    at.samples_per_second, at.low, at.high, at.efficiency
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

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
class Prediction:
    """Throughput at a count, with the range over all forms."""

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
class Model:
    """All forms, fitted on the same counts, and the one that is taken.

    Attributes:
        curve: The one that is taken.
        others: The other ones.
        baseline: The power law.
        misfit: Relative error of ``curve`` at the fitted counts, of one standard deviation; at least 2 %, since two
            counts can be fitted without any.
        fitted_replicas: The counts.
    """

    curve: Curve
    others: Tuple[Curve, ...]
    baseline: Curve
    misfit: float
    fitted_replicas: Tuple[int, ...]

    def predict(self, num_replicas: int) -> Prediction:
        """Predicts the throughput at a count."""
        (best,) = self.curve.throughput([num_replicas])
        all_forms = [float(curve.throughput([num_replicas])[0]) for curve in (self.curve, *self.others)]
        (one,) = self.curve.throughput([1])
        return Prediction(
            num_replicas,
            float(best),
            min(all_forms) * (1 - 2 * self.misfit),
            max(all_forms) * (1 + 2 * self.misfit),
            float(best / (num_replicas * one)),
        )


def fit(num_replicas: Sequence[int], samples_per_second: Sequence[float]) -> Model:
    """Fits all forms to the throughput at some counts, with a fixed batch per replica.

    Raises:
        BadInput: Fewer than two different counts, or values that are not positive.
    """
    points = _by_count(num_replicas, samples_per_second)
    p = np.array(sorted(points), dtype=float)
    rates = np.array([points[int(count)] for count in p])
    curves = {name: _fit_form(name, p, rates) for name in _FORMS}
    curve = curves.pop(_TAKEN)
    degrees_of_freedom = max(1, len(p) - len(_FORMS[_TAKEN]))
    misfit = float(np.sqrt(np.sum((curve.throughput(p) / rates - 1) ** 2) / degrees_of_freedom))
    return Model(
        curve,
        tuple(curves.values()),
        _power_law(p, rates),
        max(misfit, _LEAST_MISFIT),
        tuple(int(count) for count in p),
    )


def _by_count(num_replicas: Sequence[int], samples_per_second: Sequence[float]) -> Dict[int, float]:
    rates: Dict[int, List[float]] = {}
    for count, rate in zip(num_replicas, samples_per_second):
        if count < 1 or not rate > 0:
            raise BadInput(
                f"a count and its throughput must be positive; received {count} replicas, {rate} samples/s"
            )
        rates.setdefault(count, []).append(rate)
    if len(rates) < 2:
        raise BadInput(
            f"a model needs at least 2 different counts of replicas; received {sorted(rates)}; measure one more"
        )
    return {count: float(np.median(of_count)) for count, of_count in rates.items()}


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
    b, log_a = np.polyfit(np.log(p), np.log(rates), 1)
    return Curve(POWER_LAW, {"a": float(np.exp(log_a)), "b": float(b)})
