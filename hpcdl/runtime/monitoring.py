"""Names of values that the logs do not have: what watches one never acts, or fails after an epoch.

Where only Keras' own steps and callbacks make the logs, their names are known, and another one is refused. Else it is
said once, after the first epoch.

Synopsis::

    check_watched(model, users, is_validated=True)       # BadInput, with the nearest name
    model.fit(..., callbacks=[*users, WatchedNames("val_loss", users)])
"""

from __future__ import annotations

import string
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import tensorflow as tf

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput
from hpcdl.common.saying import say
from hpcdl.runtime.keras_edge import has_own, is_of_keras

#: What makes logs of its own, in a model or by a callback of Keras'.
_LOGGING = ("train_step", "test_step", "compute_metrics", "get_metrics_result")
#: What Keras' schedulers add, under Keras 3 and 2; what the name of a file may hold besides.
_RATES, _OF_FILES = ("learning_rate", "lr"), ("epoch", "batch")


def check_watched(model: Any, callbacks: Sequence[Any], is_validated: bool) -> None:
    """Refuses callbacks of Keras' that watch, or name a file by, a value that no log will have.

    Args:
        model: Compiled, with its metrics built.
        callbacks: The user's.
        is_validated: Whether epochs end with a validation.

    Raises:
        BadInput: One does.
    """
    watched = [(callback, option, name) for callback in callbacks for option, name in _watched(callback)]
    is_known = all(map(_is_known, callbacks)) and not any(has_own(name, model) for name in _LOGGING)
    if not watched or not is_known:
        return
    names = ["loss", *(name for name in model.get_metrics_result() if name != "loss")]
    names += [f"val_{name}" for name in names] if is_validated else []
    for callback, option, name in watched:
        if name in names or name in _RATES or (option == "filepath" and name in _OF_FILES):
            continue
        hint = did_you_mean(name, names, most=1, cutoff=0.6)
        more = "" if is_validated else ", and with validation_data the same of that"
        raise BadInput(
            f"what a callback of Keras' watches must be in the logs; received {option}={name!r} of"
            f" {type(callback).__name__}; {hint}they will have {', '.join(names)}{more}"
        )


def _is_known(callback: Any) -> bool:
    """Says whether a callback is one of Keras' whose logs are known; a LambdaCallback does what its user wants."""
    return is_of_keras(callback) and not isinstance(callback, tf.keras.callbacks.LambdaCallback)


def _watched(callback: Any) -> Iterator[Tuple[str, str]]:
    """Lists the names that a callback looks up in the logs, each with the option that holds it."""
    name = getattr(callback, "monitor", None)
    # A ModelCheckpoint that saves every time has a name too, and does not look at it.
    if isinstance(name, str) and getattr(callback, "save_best_only", True):
        yield "monitor", name
    if isinstance(callback, tf.keras.callbacks.ModelCheckpoint):
        for _, field, _, _ in string.Formatter().parse(str(callback.filepath)):
            if field:
                yield "filepath", field  # "{val_loss:.2f}.keras"


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
            self._to_say += [
                (f"{type(callback).__name__} never acts: it watches {name}", name)
                for option, name in _watched(callback)
                if option == "monitor"
            ]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        to_say, self._to_say = self._to_say, []
        for words, name in to_say:
            if logs and name not in logs:
                hint = did_you_mean(name, logs, most=1, cutoff=0.6)
                say(f"{words}, which the logs lack; {hint}they have {', '.join(logs)}")
