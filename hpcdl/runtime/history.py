"""The values of a run by epoch: a name may have none in some, such as a metric of validation that begins later.

Keras appends what it gets to one list for each name, which does not say of which epochs its values are.

Synopsis::

    history = History(before={"loss": [0.5, 0.4]})
    model.fit(..., callbacks=[*users, history])
    history.by_name()                                  # {"loss": [0.5, 0.4, 0.3], "val_loss": [None, None, 0.6]}
    history.rows[-1]                                   # {"loss": 0.3, "val_loss": 0.6}
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np
import tensorflow as tf


class History(tf.keras.callbacks.History):
    """Keras' History of all epochs, also of those of earlier starts; it knows the values of each epoch besides.

    Args:
        before: What `by_name` gave in an earlier start.

    Attributes:
        rows: The values of each epoch by name, as JSON: of a metric that gives an array a list.
    """

    def __init__(self, before: Mapping[str, Sequence[Any]]) -> None:
        super().__init__()
        self._before = before
        self.rows: List[Dict[str, Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        # Lists of an earlier hpcdl may end early.
        for epoch, values in enumerate(zip_longest(*self._before.values())):
            row = {name: value for name, value in zip(self._before, values) if value is not None}
            self.on_epoch_end(epoch, {n: np.array(v) if isinstance(v, list) else v for n, v in row.items()})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.rows.append({name: np.asarray(value, float).tolist() for name, value in (logs or {}).items()})

    def by_name(self) -> Dict[str, List[Any]]:
        """Gives a value for each epoch, by name; None where the epoch had none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names}
