"""Turns data sets into what networks are fed: floats from 0 to 1, bytes, standardized numbers, padded texts.

Synopsis::

    arrays = gray_images(datasets.load("mnist"), "float32")
    arrays.x_train.shape, arrays.y_train.dtype              # (60000, 28, 28, 1), int32
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcdl.runtime.data_reading import DataSet
from hpcdl.runtime.networks import TEXT_LENGTH, VOCABULARY

#: What a rare word becomes, as in `tf.keras.datasets`.
_RARE = 2


class Arrays(NamedTuple):
    """What a network is fed: x, and y as int32 labels or as numbers."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def gray_images(data: DataSet, dtype: str) -> Arrays:
    """Returns gray images as ``dtype`` in [0, 1] with a channel axis."""
    return Arrays(
        _scaled(data.x_train, dtype), _labels(data.y_train), _scaled(data.x_test, dtype), _labels(data.y_test)
    )


def as_stored(data: DataSet, dtype: str) -> Arrays:
    """Returns bytes or whole numbers as they are."""
    return Arrays(data.x_train, _labels(data.y_train), data.x_test, _labels(data.y_test))


def standardized(data: DataSet, dtype: str) -> Arrays:
    """Returns numbers with mean 0 and deviation 1 over the training part, and y as numbers in a column."""
    mean, deviation = data.x_train.mean(axis=0), data.x_train.std(axis=0)
    return Arrays(
        ((data.x_train - mean) / deviation).astype(dtype), data.y_train.astype(dtype)[:, np.newaxis],
        ((data.x_test - mean) / deviation).astype(dtype), data.y_test.astype(dtype)[:, np.newaxis],
    )  # fmt: skip


def texts(data: DataSet, dtype: str) -> Arrays:
    """Returns the last words of each text, as numbers, rare ones as one."""
    return Arrays(
        data.x_train.padded(TEXT_LENGTH, VOCABULARY, _RARE), _labels(data.y_train),
        data.x_test.padded(TEXT_LENGTH, VOCABULARY, _RARE), _labels(data.y_test),
    )  # fmt: skip


def _scaled(images: np.ndarray, dtype: str) -> np.ndarray:
    scaled = images.astype(dtype)[..., np.newaxis]
    scaled /= 255  # In place: a second copy of the whole set would be the peak of a rank's memory.
    return scaled


def _labels(y: np.ndarray) -> np.ndarray:
    return y.reshape(-1).astype(np.int32)
