"""Which checkpoint is the best: by what value of the logs, and whether the least or the greatest of it is.

Synopsis::

    best = parse_best_by("max:val_dice")
    best.score({"loss": 0.5, "val_dice": 0.75})         # -0.75: the less the better
    best.notices(parse_interval("30min"))               # what a user may not expect
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.common.metrics import is_greatest_best, words_of
from hpcdl.common.schedule import Interval


@dataclass(frozen=True)
class BestBy:
    """By what a checkpoint is the best.

    Attributes:
        name: The value in the logs.
        is_greatest: Whether the greatest one is the best.
        is_guessed: Whether that was guessed from the name, and is not as plain as of a loss.
    """

    name: str
    is_greatest: bool
    is_guessed: bool

    def __str__(self) -> str:
        return f"{'max' if self.is_greatest else 'min'}:{self.name}"

    def score(self, logs: Mapping[str, Any]) -> Optional[float]:
        """Gives the score of a checkpoint, the less the better: of a metric with several values by their mean."""
        if self.name not in logs:
            return None
        return float(np.mean(logs[self.name])) * (-1 if self.is_greatest else 1)

    def notices(self, interval: Interval) -> Iterator[str]:
        """Says what a user who named the value may not expect.

        Args:
            interval: How often a checkpoint is due.
        """
        if self.is_guessed:
            kind, other = ("greatest", "min") if self.is_greatest else ("least", "max")
            yield f"the {kind} {self.name} is taken as the best, by its name; else pass best_by='{other}:{self.name}'"
        if interval.epochs is None:
            yield (
                f"only a checkpoint at the end of an epoch can be the best by {self.name}; let checkpoint_every have"
                " epochs, such as 1epoch, so that there are some"
            )


def parse_best_by(text: str) -> BestBy:
    """Reads ``val_loss``, ``min:val_loss`` or ``max:val_dice``.

    Raises:
        BadInput: It is none of these.
    """
    direction, _, name = str(text).rpartition(":")
    if not name or direction not in ("", "min", "max"):
        raise BadInput(
            f"best_by must be a value of the logs, with min: or max: before it or without; received {text!r}; pass e.g."
            " val_loss or max:val_dice"
        )
    if direction:
        return BestBy(name, direction == "max", is_guessed=False)
    return BestBy(name, bool(is_greatest_best(name)), is_guessed="loss" not in words_of(name))
