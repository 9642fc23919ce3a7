"""What the user passes as x, y and sample_weight, as arrays: Keras takes lists, tuples and dicts of them too.

Synopsis::

    arrays, num_rows = nest_of_arrays((x, y, sample_weight))      # BadInput where NumPy makes no arrays of them
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.class_weights import with_class_weight
from hpcdl.runtime.pairing import named


def nest_of_arrays(data: Any, class_weight: Optional[Mapping[int, float]] = None) -> Tuple[Any, int]:
    """Makes arrays of ``(x, y, sample_weight)``, floating ones in Keras' floatx, as Keras does; Nones fall away.

    Args:
        data: A nest of what NumPy makes arrays of.
        class_weight: As in Keras; it is folded into the sample weights.

    Returns:
        The nest, with tuples for lists, and its number of rows. An array that needs no change is the user's own, not a
        copy.
    """
    while data and data[-1] is None:
        data = data[:-1]

    def array(value: Any) -> np.ndarray:
        made = np.asarray(value)
        if made.dtype == object or made.ndim == 0:
            raise BadInput(
                f"data must be arrays of rows; received {_described(value)}; pass NumPy arrays (or lists or dicts"
                " of them) for x, y and sample_weight"
            )
        # A copy of a whole data set would be the peak of a rank's memory.
        return made.astype(tf.keras.backend.floatx(), copy=False) if made.dtype.kind == "f" else made

    arrays = tf.nest.map_structure(array, _tuples_for_lists(data))
    if class_weight is not None:
        x, y, weight = (*arrays, None, None)[:3]
        arrays = (x, y, array(with_class_weight(class_weight, y, weight)))
    rows = [len(a) for a in tf.nest.flatten(arrays)]
    if not rows or len(set(rows)) > 1 or rows[0] == 0:
        names = [
            name for what, nest in zip(("x", "y", "sample_weight"), arrays) for name, _ in named(nest, what)
        ]
        raise BadInput(
            f"all arrays must have the same number of rows, at least 1; received {rows} of {', '.join(names)}; cut the"
            " longer ones, or look where rows were lost"
        )
    return arrays, rows[0]


def _tuples_for_lists(nest: Any) -> Any:
    """Makes tuples of lists: tf.data would stack the members of a list, as if they were one array."""
    if isinstance(nest, dict):
        return {name: _tuples_for_lists(value) for name, value in nest.items()}
    if isinstance(nest, list) and any(np.isscalar(value) for value in nest):
        raise BadInput(
            "a list holds the arrays of several inputs or outputs; received a list of numbers or texts,"
            f" {nest!r:.40}; pass np.array(...) of your data"
        )
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*map(_tuples_for_lists, nest))
    return tuple(map(_tuples_for_lists, nest)) if isinstance(nest, (list, tuple)) else nest


def _described(value: Any) -> str:
    dtype = f" of {value.dtype.name}" if isinstance(value, np.ndarray) else ""
    return f"{type(value).__name__}{dtype}"
