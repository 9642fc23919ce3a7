"""The values of a run by epoch: a name may have none in some, such as a metric of validation that begins later.

Keras appends what it gets to one list for each name, which does not say of which epochs its values are.

Synopsis::

    history = History(before={"loss": [0.5, 0.4]}, is_rank_0=topology.is_rank_0)
    model.fit(..., callbacks=[*users, history])
    history.by_name()                                  # {"loss": [0.5, 0.4, 0.3], "val_loss": [None, None, 0.6]}
    history.rows[-1]                                   # {"loss": 0.3, "val_loss": 0.6}
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Dict, List, Mapping, Sequence, Set

import numpy as np
import tensorflow as tf

from hpcdl.common.saying import say


class History(tf.keras.callbacks.History):
    """Keras' History of all epochs, also of those of earlier starts; it knows the values of each epoch besides.

    Args:
        before: What `by_name` gave in an earlier start.
        is_rank_0: Whether this rank says what the rows lack.

    Attributes:
        rows: The numbers of each epoch by name, as JSON: of a metric that gives an array a list.
    """

    def __init__(self, before: Mapping[str, Sequence[Any]], is_rank_0: bool) -> None:
        super().__init__()
        self._before, self._is_rank_0 = before, is_rank_0
        self._left_out: Set[str] = set()
        self.rows: List[Dict[str, Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        # Lists of an earlier hpcdl may end early.
        for epoch, values in enumerate(zip_longest(*self._before.values())):
            row = {name: value for name, value in zip(self._before, values) if value is not None}
            self.on_epoch_end(epoch, {n: np.array(v) if isinstance(v, list) else v for n, v in row.items()})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        given = {name: value for name, value in (logs or {}).items() if value is not None}
        numbers = {name: _numbers(value) for name, value in given.items()}
        self.rows.append({name: value for name, value in numbers.items() if value is not None})
        left_out = given.keys() - self.rows[-1].keys() - self._left_out
        self._left_out |= left_out
        if left_out and self._is_rank_0:
            received = ", ".join(f"{name}={value!r:.80}" for name, value in given.items() if name in left_out)
            say(
                f"a run keeps numbers, and arrays of them; received {received} in the logs of an epoch, which"
                " history.csv and the checkpoints leave out; log a number instead if it is to be kept"
            )

    def by_name(self) -> Dict[str, List[Any]]:
        """Gives a value for each epoch, by name; None where the epoch had none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names}


def _numbers(value: Any) -> Any:
    """Makes JSON of a number or an array of them; None if it is neither."""
    try:
        return np.asarray(value, float).tolist()
    except (TypeError, ValueError, OverflowError):
        return None
