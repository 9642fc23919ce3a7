"""The idx file form of MNIST and its siblings: a big-endian header (type, shape), then the array's bytes.

The same bytes name an array: its SHA-256 is taken over its idx form, so that one known value checks a raw
file, a gzipped file and an array that came in another form (npz).

Synopsis::

    images = read_idx(Path("train-images-idx3-ubyte.gz"))     # uint8, (60000, 28, 28)
    idx_sha256(images)                                        # hash of what gunzip would give
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

#: Type code in the header -> NumPy's name of it.
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}


class DamagedFile(Exception):
    """A data file is not what it should be; the text names the file, what was expected and what was found."""


def read_idx(path: Path) -> np.ndarray:
    """Returns the array in an idx file; a name that ends in ``.gz`` is gunzipped.

    Raises:
        DamagedFile: the file is cut short, too long, damaged or not idx.
    """
    content = _gunzipped(path) if path.suffix == ".gz" else path.read_bytes()
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        found = content[:4].hex(" ") or "nothing"
        raise DamagedFile(f"{path}: expected an idx header (00 00, type, dimensions), found {found}")
    dtype, num_dimensions = np.dtype(_DTYPES[content[2]]), content[3]
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes:
        raise DamagedFile(f"{path}: expected an idx header of {header_bytes} bytes, found {len(content)}")
    shape = struct.unpack(f">{num_dimensions}I", content[4:header_bytes])
    expected_bytes = header_bytes + math.prod(shape) * dtype.itemsize
    if len(content) != expected_bytes:
        raise DamagedFile(
            f"{path}: expected {expected_bytes} bytes by its header, of shape {shape}, found {len(content)}"
        )
    array = np.frombuffer(content, dtype, offset=header_bytes).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def idx_header(array: np.ndarray) -> bytes:
    """Returns the header that stands before the bytes of ``array`` in an idx file."""
    code = _CODES.get(array.dtype.newbyteorder(">"))
    if code is None:
        raise ValueError(f"an array of {array.dtype}, which idx does not have")
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)


def idx_sha256(array: np.ndarray) -> str:
    """Returns the SHA-256 of ``array`` in idx form, as hexadecimal digits; ValueError if it has none."""
    digest = hashlib.sha256(idx_header(array))
    digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder(">")).data)
    return digest.hexdigest()


def _gunzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Unreadable is not the same as damaged.
            raise
        found = f"{path.stat().st_size} bytes, cut short or damaged ({error})"
        raise DamagedFile(f"{path}: expected a whole gzip file, found {found}") from error
