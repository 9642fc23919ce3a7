"""Made-up images and tokens with random labels, for benchmarks: the same on every rank, and learnable by heart only.

Their name, their source and the run's record say that they are synthetic.

Synopsis::

    data = images((224, 224, 3), num_classes=1000, least_rows=256)
    data.name, data.source                      # "synthetic images", "random numbers (seed 0), not real data"
"""

from __future__ import annotations

from typing import Callable, Tuple

import numpy as np

from hpcdl.runtime.data_reading import DataSet

_SEED = 0
#: Rows of the training part where no global batch needs more, and of the test part.
_NUM_TRAIN, _NUM_TEST = 256, 64


def images(shape: Tuple[int, ...], num_classes: int, least_rows: int) -> DataSet:
    """Makes pictures of random bytes."""

    def rows(random: np.random.Generator, count: int) -> np.ndarray:
        return np.frombuffer(random.bytes(count * int(np.prod(shape))), np.uint8).reshape(count, *shape)

    return _made("synthetic images", rows, num_classes, least_rows)


def tokens(length: int, vocabulary: int, num_classes: int, least_rows: int) -> DataSet:
    """Makes texts of random words."""

    def rows(random: np.random.Generator, count: int) -> np.ndarray:
        return random.integers(0, vocabulary, (count, length), dtype=np.int32)

    return _made("synthetic tokens", rows, num_classes, least_rows)


def _made(
    name: str, rows: Callable[[np.random.Generator, int], np.ndarray], num_classes: int, least_rows: int
) -> DataSet:
    random = np.random.default_rng(_SEED)
    num_train = max(_NUM_TRAIN, least_rows)
    return DataSet(
        name,
        num_classes,
        x_train=rows(random, num_train),
        y_train=random.integers(0, num_classes, num_train, dtype=np.int32),
        x_test=rows(random, _NUM_TEST),
        y_test=random.integers(0, num_classes, _NUM_TEST, dtype=np.int32),
        source=f"random numbers (seed {_SEED}), not real data",
        sha256={},
    )
