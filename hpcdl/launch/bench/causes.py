"""Where the time of a step goes, and to what efficiency is lost. Pure functions of step times.

Three runs of the same ranks tell the parts apart: the real one, a control without the exchange between processes, and
one that besides takes the same batch from memory again and again. Without the exchange every rank runs at its own
pace. Ranks that exchange wait in each step for the slowest of that step, so that what they would take if the exchange
itself cost nothing is the mean over the steps of the maximum over the ranks of the control.

    step      = compute + input + imbalance + exchange
    compute   = mean of the run from memory
    input     = mean of the control - compute
    imbalance = mean over the steps of the slowest rank of the control - mean of the control
    exchange  = step - mean over the steps of the slowest rank of the control

Each part is a difference between launches. Over several rounds it has an interval, and only a part whose interval
leaves out 0 is called a cause: all else may be the machine's noise.

Synopsis::

    parts = split(0.120, control=[[0.1, 0.1], [0.1, 0.12]], cached=None)
    parts.imbalance_s, parts.exchange_s                       # 0.005, 0.01
    losses(parts, baseline, scale=1.0)                        # {"exchange": 0.08, ...}, in sum 1 - efficiency
    sentence(lost, efficiency, "weak")                      # "21.2 % (15.0 to 25.1) of a step are lost; of it to ..."
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Dict, Mapping, Optional, Sequence

from hpcdl.launch.bench.figures import with_spread
from hpcdl.launch.bench.ratios import Estimate

#: Seconds of the timed steps of each rank.
Ranks = Sequence[Sequence[float]]

NAMES = ("compute", "input", "imbalance", "exchange")
#: What a part is called in a sentence.
_WORDS: Mapping[str, str] = {
    "input": "waiting for input",
    "imbalance": "waiting for the slowest rank",
    "exchange": "the exchange of gradients",
}
#: And computing, by the kind of scaling.
_COMPUTING: Mapping[str, str] = {
    "weak": "slower computing, since more of the machine is busy",
    "strong": "the fixed overhead of a step beside a smaller batch",
}
#: Less than this part of a step is not told.
_LEAST = 0.0005


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by cause; noise can make a small one negative.

    Attributes:
        compute_s: Of the mean rank; with the input where that was not measured by itself.
        input_s: Until data are there; None: not measured.
        imbalance_s: Until the slowest rank of the step is there.
        exchange_s: Beyond that.
    """

    compute_s: float
    input_s: Optional[float]
    imbalance_s: float
    exchange_s: float

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.compute_s + (self.input_s or 0.0) + self.imbalance_s + self.exchange_s

    def by_name(self) -> Dict[str, float]:
        """Gives the parts that were measured."""
        found = {name: getattr(self, f"{name}_s") for name in NAMES}
        return {name: seconds for name, seconds in found.items() if seconds is not None}


def mean_step(ranks: Ranks) -> float:
    """Gives the mean over all ranks and steps."""
    return sum(map(sum, ranks)) / sum(map(len, ranks))  # of millions of steps: nothing that runs in Python


def slowest_step(ranks: Ranks) -> float:
    """Gives the mean over the steps of the slowest rank of each: what ranks take that only wait for each other."""
    return fmean(map(max, zip(*ranks)))


def split(step_s: float, control: Ranks, cached: Optional[Ranks]) -> Parts:
    """Splits a step.

    Args:
        step_s: Mean of the real run, of its slowest rank.
        control: Steps of the ranks without the exchange.
        cached: The same with data from memory; None: not measured.
    """
    mean, slowest = mean_step(control), slowest_step(control)
    compute = mean if cached is None else mean_step(cached)
    return Parts(compute, None if cached is None else mean - compute, slowest - mean, step_s - slowest)


def losses(parts: Parts, baseline: Parts, scale: float) -> Dict[str, float]:
    """Gives by cause which part of the step is lost; in sum 1 - efficiency.

    Args:
        parts: Of the point.
        baseline: Of the smallest point.
        scale: What an ideal step takes of the baseline's: 1 in weak scaling, fewer / more replicas in strong scaling.
    """
    mine, base = parts.by_name(), baseline.by_name()
    if set(mine) != set(base):  # the input of only one is known
        mine, base = _without_input(mine), _without_input(base)
    return {name: (mine[name] - scale * base[name]) / parts.step_s for name in mine}


def _without_input(parts: Mapping[str, float]) -> Dict[str, float]:
    rest = {name: seconds for name, seconds in parts.items() if name != "input"}
    return {**rest, "compute": parts["compute"] + parts.get("input", 0.0)}


def sentence(lost: Mapping[str, Estimate], efficiency: Estimate, scaling: str) -> str:
    """Says to what efficiency is lost, the largest cause first; a cause is only what can be told from noise.

    Args:
        lost: What `losses` gives, over the rounds. In each round it adds up to what is lost; the medians need not.
        efficiency: Over the rounds.
        scaling: ``weak`` or ``strong``.
    """
    total, words = efficiency.rest(), {**_WORDS, "compute": _COMPUTING[scaling]}
    causes, gains, noise = [], [], []
    for name in sorted(lost, key=lambda name: -lost[name].median):
        found, written = lost[name], f"{words[name]} {_percent(lost[name])}"
        if _is_nothing(found):
            continue
        if not found.excludes(0.0):
            noise.append(written)
        elif found.median > 0:
            causes.append(written)
        else:
            gains.append(f"{name} {_percent(found)}")
    if total.median < _LEAST or (total.has_interval and not total.excludes(0.0)):
        said = ["nothing is lost that could be told from noise"]
    else:
        said = [f"{_percent(total)} of a step are lost"]
    untold = "not told from noise" if total.has_interval else "too few rounds to tell noise from"
    for group, members in (("of it to", causes), ("gained in", gains), (f"{untold}:", noise)):
        said += [f"{group} {', '.join(members)}"] if members else []
    return "; ".join(said)


def _percent(estimate: Estimate) -> str:
    return with_spread(estimate, 100, "{:.1f}".format, " %")


def _is_nothing(estimate: Estimate) -> bool:
    """Whether all of it is too little to be told."""
    return all(abs(value) < _LEAST for value in (estimate.median, *(estimate.spread or ())))
