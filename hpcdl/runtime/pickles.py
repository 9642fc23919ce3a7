"""Reads pickles that hold NumPy arrays, lists, dicts, numbers and text, and nothing that runs code.

Some of Keras' data sets are pickles. A pickle names functions that are called as it is read; here all but the three
that make an array are refused, whoever the file is from.

Synopsis::

    batch = read_pickle(stream, encoding="bytes")           # pickle.UnpicklingError if it does more
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np

#: What an array's pickle calls first; its module moved in NumPy 2, and the old name warns.
_RECONSTRUCT = np.empty(0).__reduce__()[0]

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"a pickle that calls {module}.{name}, which no data set needs")
        return _ALLOWED[module, name]


def read_pickle(stream: BinaryIO, encoding: str = "ASCII") -> Any:
    """Reads one pickle.

    Args:
        stream: Where it begins.
        encoding: Of text that Python 2 wrote; ``bytes`` leaves it as it is.

    Raises:
        pickle.UnpicklingError: It calls anything but what makes an array, or it is damaged; other errors of a damaged
            pickle are those of ``pickle.load``.
    """
    return _Unpickler(stream, encoding=encoding).load()


def read_npy(stream: BinaryIO) -> np.ndarray:
    """Reads an array in NumPy's own form, which may hold lists."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0
    if version[0] > 1:  # 3.0 differs in the encoding of field names only, and these arrays have none.
        read_header = np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        return read_pickle(stream)
    flat = np.frombuffer(stream.read(), dtype)
    return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
