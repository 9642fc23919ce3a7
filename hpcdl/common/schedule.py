"""Batch sizes, learning-rate factor, warmup, epochs and steps for a number of replicas: pure arithmetic.

Synopsis::

    batches = resolve_batches(per_replica=128, num_replicas=4)        # global 512, reference 128
    factor = lr_factor(batches, "linear")                             # 4.0
    steps = steps_per_epoch(60_000, batches.global_batch_size)        # 118
    warmup = warmup_steps(1, steps)
    rates = [0.1 * warmup_multiplier(step, warmup, factor) for step in range(2 * steps)]

The rules are those of Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (2017):
linear scaling (section 2.1) and gradual warmup (section 2.2).
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from hpcdl.common.checks import near_ones, one_of, whole_number
from hpcdl.common.errors import BadInput

LR_SCALINGS = ("linear", "sqrt", "none")

_TIME_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_COUNT_UNITS = {"step": "steps", "steps": "steps", "epoch": "epochs", "epochs": "epochs"}


@dataclass(frozen=True)
class Batches:
    """The batch sizes of a run; checked when they are made.

    Attributes:
        per_replica_batch_size: Samples of one replica in one step.
        global_batch_size: Samples of all replicas in one step.
        reference_batch_size: Global batch size that the user's learning rate was chosen for.
        num_replicas: World size x replicas per process.
    """

    per_replica_batch_size: int
    global_batch_size: int
    reference_batch_size: int
    num_replicas: int

    def __post_init__(self) -> None:
        for name in ("per_replica_batch_size", "global_batch_size", "reference_batch_size", "num_replicas"):
            whole_number(name, getattr(self, name))
        if self.per_replica_batch_size * self.num_replicas != self.global_batch_size:
            raise BadInput(
                "global_batch_size must be per_replica_batch_size x num_replicas; received"
                f" {self.global_batch_size} and {self.per_replica_batch_size} x {self.num_replicas};"
                " pass one of the two sizes only"
            )

    @property
    def factor(self) -> float:
        """f = global batch size / reference batch size, before ``lr_scaling``."""
        return self.global_batch_size / self.reference_batch_size


def resolve_batches(
    per_replica: Optional[int] = None,
    global_: Optional[int] = None,
    reference: Optional[int] = None,
    *,
    num_replicas: int,
) -> Batches:
    """Completes the batch sizes from the one that the user gave.

    Args:
        per_replica: Per-replica batch size; it is the reference, if there is no other.
        global_: Global batch size; likewise.
        reference: Global batch size that the learning rate was chosen for.
        num_replicas: World size x replicas per process.

    Raises:
        BadInput: Both or neither of the sizes were given, or num_replicas does not divide the global one.
    """
    num_replicas = whole_number("num_replicas", num_replicas)
    if (per_replica is None) == (global_ is None):
        given = "neither" if per_replica is None else f"both ({per_replica} and {global_})"
        raise BadInput(
            f"pass exactly one of per_replica_batch_size and global_batch_size; received {given};"
            f" global = per-replica x num_replicas, and num_replicas is {num_replicas}"
        )
    if per_replica is not None:
        per_replica = default_reference = whole_number("per_replica_batch_size", per_replica)
    else:
        global_ = default_reference = whole_number("global_batch_size", global_)
        per_replica = _divide(global_, num_replicas)
    if reference is not None:
        default_reference = whole_number("reference_batch_size", reference)
    return Batches(per_replica, per_replica * num_replicas, default_reference, num_replicas)


def _divide(global_batch_size: int, num_replicas: int) -> int:
    per_replica, rest = divmod(global_batch_size, num_replicas)
    if rest or per_replica == 0:
        near = " or ".join(str(n * num_replicas) for n in (per_replica, per_replica + 1) if n)
        raise BadInput(
            f"num_replicas must divide global_batch_size; received {global_batch_size} and"
            f" {num_replicas} replicas; pass e.g. {near}, or per_replica_batch_size"
        )
    return per_replica


def lr_factor(batches: Batches, lr_scaling: str) -> float:
    """Gives the factor on the learning rate: f for ``linear``, its root for ``sqrt``, 1 for ``none``."""
    one_of("lr_scaling", lr_scaling, LR_SCALINGS)
    if lr_scaling == "none":
        return 1.0
    return batches.factor if lr_scaling == "linear" else math.sqrt(batches.factor)


def steps_per_epoch(num_samples: int, global_batch_size: int) -> int:
    """Counts the steps in which every sample is seen once; the last one may be smaller."""
    batch = whole_number("global_batch_size", global_batch_size)
    return -(-whole_number("number of samples", num_samples) // batch)


def scaled_epochs(epochs: int, num_replicas: int) -> int:
    """Divides epochs by num_replicas and rounds up: n replicas share the epochs of one."""
    return -(-whole_number("epochs", epochs) // whole_number("num_replicas", num_replicas))


def warmup_number(warmup_epochs: Any) -> float:
    """Accepts a number of warmup epochs of any type (NumPy's too), maybe a fraction; gives it as one of Python's."""
    is_of_numpy = isinstance(warmup_epochs, numbers.Real) and hasattr(warmup_epochs, "item")
    number: float = warmup_epochs.item() if is_of_numpy else warmup_epochs
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not (is_number and 0 <= number < math.inf):
        raise BadInput(
            f"warmup_epochs must be a number >= 0; received {warmup_epochs!r}; pass e.g. 1 (0: none)"
        )
    return number


def warmup_steps(warmup_epochs: float, steps_in_epoch: int) -> int:
    """Turns warmup epochs into the nearest number of steps."""
    return round(warmup_number(warmup_epochs) * steps_in_epoch)


def warmup_multiplier(step: int, num_warmup_steps: int, factor: float) -> float:
    """Gives the multiplier on the user's learning rate in one step.

    As in Goyal et al. 2017, section 2.2, where the rate starts at eta and is incremented by a constant amount
    at each iteration until it reaches k eta after 5 epochs: it is the user's own in step 0, grows by the same
    amount in each step (`warmup_ramp`), and is ``factor`` times the user's from step ``num_warmup_steps`` on.
    Horovod's callback is one step ahead of that, for rounder figures at the end of an epoch. A factor below 1
    needs no warmup, since the user's own rate is the larger one: it holds from step 0 on.

    Args:
        step: Steps taken since the start of training, over all epochs.
        num_warmup_steps: Length of the ramp; 0 is none.
        factor: What `lr_factor` gave.
    """
    if step >= num_warmup_steps or factor <= 1:
        return factor
    return float(warmup_ramp(step, num_warmup_steps, factor))


def warmup_ramp(step: Any, num_warmup_steps: int, factor: float) -> Any:
    """Gives the multiplier within the warmup; ``step`` may be a tensor."""
    return 1 + (factor - 1) * step / num_warmup_steps


def share(num_samples: int, replica: int, num_replicas: int) -> Tuple[int, int]:
    """Gives where a replica's share of a batch begins, and its size.

    Shares are contiguous and differ by one at most, larger ones first; some may be 0. The cost does not depend on the
    number of replicas.
    """
    size, rest = divmod(
        whole_number("number of samples", num_samples, least=0), whole_number("num_replicas", num_replicas)
    )
    return replica * size + min(replica, rest), size + (replica < rest)


@dataclass(frozen=True)
class Interval:
    """How often something happens; whichever part comes first. None: that part never.

    Attributes:
        seconds: After so much time.
        steps: After so many steps.
        epochs: After so many epochs.
    """

    seconds: Optional[float] = None
    steps: Optional[int] = None
    epochs: Optional[int] = None


def parse_interval(text: str, what: str = "checkpoint_every") -> Interval:
    """Reads ``10min``, ``500steps``, ``1epoch``, ``30s``, ``2h``, several joined by commas, or ``never``.

    Args:
        text: The interval.
        what: The word that the user wrote, for the message.
    """
    parts: Dict[str, Any] = {}
    if text == "never":
        return Interval()
    for part in str(text).split(","):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)", part.strip())
        count, unit = match.groups() if match else ("", "")
        kind = "seconds" if unit in _TIME_UNITS_S else _COUNT_UNITS.get(unit, "")
        is_whole = count.isdigit()
        if not kind or kind in parts or not float(count) or (kind != "seconds" and not is_whole):
            near = near_ones(unit, (*_TIME_UNITS_S, *_COUNT_UNITS), 1, 0.6) if not kind else []
            hint = f"did you mean {count}{near[0]}? " if near else ""
            units = ", ".join((*_TIME_UNITS_S, "steps", "epochs"))
            raise BadInput(
                f"{what} must be a number > 0 with one of the units {units}, each kind once; received"
                f" {text!r}; {hint}pass e.g. 10min, 500steps or 10min,1epoch, or never"
            )
        parts[kind] = float(count) * _TIME_UNITS_S[unit] if kind == "seconds" else int(count)
    return Interval(**parts)
