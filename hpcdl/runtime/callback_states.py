"""What callbacks remember: EarlyStopping's patience, ReduceLROnPlateau's best value, and the like.

Keras saves none of it. A callback's memory is taken to be those of its attributes that are plain values (numbers,
text, lists and dicts of them, lists of arrays) and that changed since the training began; what was set when it was
made, such as ``patience``, stays as the script says. Rank 0's memories are saved, and restored on every rank.

Synopsis::

    states = CallbackStates(callbacks)
    states.begin()                      # after their on_train_begin
    values, arrays = states.capture()
    states.restore(values, arrays)      # after begin(), in a later start
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

import numpy as np

#: Keras 3 changes the sign of this setting when it first looks at the metrics, and would do so again.
_NO_MEMORY = ("min_delta",)


class CallbackStates:
    """The memories of callbacks, each known by its class and its place among those of that class.

    Args:
        callbacks: The same ones on every rank, also those that run on rank 0 only: their places count.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks: Dict[str, Any] = {}
        for callback in callbacks:
            name, n = type(callback).__name__, 0
            while f"{name}-{n}" in self._callbacks:
                n += 1
            self._callbacks[f"{name}-{n}"] = callback
        self._at_first: Dict[str, Dict[str, str]] = {}
        self._restored: Set[str] = set()

    def begin(self) -> None:
        """Notes the values from which changes count."""
        self._at_first = {
            name: {key: json.dumps(value) for key, value in _plain_values(callback)}
            for name, callback in self._callbacks.items()
        }

    def capture(self) -> Tuple[Dict[str, Dict[str, Any]], Dict[str, np.ndarray]]:
        """Gives what changed.

        Returns:
            Plain values as JSON, by callback and attribute; arrays, named ``callback/EarlyStopping-0/best_weights/3``.
        """
        values: Dict[str, Dict[str, Any]] = {}
        arrays: Dict[str, np.ndarray] = {}
        for name, callback in self._callbacks.items():
            first = self._at_first.get(name, {})
            changed = {
                key: value
                for key, value in _plain_values(callback)
                if first.get(key) != json.dumps(value) and key not in _NO_MEMORY
            }
            if changed:
                values[name] = changed
            for key, value in vars(callback).items():
                if _is_list_of_arrays(value):
                    arrays.update({f"callback/{name}/{key}/{i}": array for i, array in enumerate(value)})
        return values, arrays

    def restore(self, values: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> List[str]:
        """Sets what was captured.

        Returns:
            The callbacks whose memory was captured, but which are not here now.
        """
        self._restored = set(values)
        for name, changed in values.items():
            for key, value in changed.items() if name in self._callbacks else ():
                setattr(self._callbacks[name], key, value)
        lists: Dict[Tuple[str, str], List[Tuple[int, np.ndarray]]] = {}
        for path, array in arrays.items():
            kind, *rest = path.split("/")
            if kind == "callback":
                name, key, i = rest
                lists.setdefault((name, key), []).append((int(i), array))
        for (name, key), items in lists.items():
            if name in self._callbacks:
                setattr(self._callbacks[name], key, [a for _, a in sorted(items, key=lambda item: item[0])])
        return sorted(set(values) - set(self._callbacks))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Sets back, when the context ends, what callbacks whose memory was restored remembered when it began."""
        restored = {name: one for name, one in self._callbacks.items() if name in self._restored}
        before = {name: dict(_plain_values(callback)) for name, callback in restored.items()}
        yield
        for name, callback in restored.items():
            now = dict(_plain_values(callback))
            for key, value in before[name].items():
                if json.dumps(now.get(key)) != json.dumps(value):
                    setattr(callback, key, value)


def _plain_values(callback: Any) -> Iterator[Tuple[str, Any]]:
    for key, value in vars(callback).items():
        if key in ("model", "_model", "params"):
            continue
        try:
            yield key, _plain(value)
        except TypeError:
            continue  # not a plain value, so not a memory that a file could hold


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: _plain(v) for k, v in value.items()}
    raise TypeError(type(value).__name__)


def _is_list_of_arrays(value: Any) -> bool:
    # Arrays of objects would be pickled, and no checkpoint is read that has a pickle in it.
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(isinstance(v, np.ndarray) and not v.dtype.hasobject for v in value)
