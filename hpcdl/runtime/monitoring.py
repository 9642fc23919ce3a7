"""Names of values that the logs turn out not to have, said once, after the first epoch: what watches one never acts.

Synopsis::

    model.fit(..., callbacks=[*users, WatchedNames("val_loss", users)])
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import tensorflow as tf

from hpcdl.common.checks import did_you_mean
from hpcdl.common.saying import say


class WatchedNames(tf.keras.callbacks.Callback):
    """Looks at the logs of the first epoch; it stands behind the user's callbacks, which may add to these.

    Args:
        best_by: The value whose best checkpoint is kept; None: none is.
        callbacks: The user's.
    """

    def __init__(self, best_by: Optional[str], callbacks: Sequence[Any]) -> None:
        super().__init__()
        self._to_say: List[Tuple[str, str]] = []
        if best_by is not None:
            self._to_say.append((f"no checkpoint is the best by {best_by}", best_by))
        for callback in callbacks:
            name = getattr(callback, "monitor", None)
            # A ModelCheckpoint that saves every time has a name too, and does not look at it.
            if isinstance(name, str) and getattr(callback, "save_best_only", True):
                self._to_say.append((f"{type(callback).__name__} never acts: it watches {name}", name))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        to_say, self._to_say = self._to_say, []
        for words, name in to_say:
            if logs and name not in logs:
                hint = did_you_mean(name, logs, most=1, cutoff=0.6)
                say(f"{words}, which the logs lack; {hint}they have {', '.join(logs)}")
