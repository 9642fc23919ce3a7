"""Rows of different lengths, such as texts as numbers of words, in two plain arrays.

Synopsis::

    texts = Ragged.of_lists([[1, 14, 22], [1, 194]])
    texts.padded(4, vocabulary=100, out_of_vocabulary=2)    # [[0, 1, 14, 22], [0, 0, 1, 2]]
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import List, Sequence

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths.

    Attributes:
        values: of all rows, one after the other.
        ends: for each row, where it ends in ``values``.
    """

    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of_lists(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Packs lists of whole numbers."""
        lengths = [len(row) for row in rows]
        values = np.fromiter(itertools.chain.from_iterable(rows), np.int32, sum(lengths))
        return cls(values, np.cumsum(lengths, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def rows(self) -> List[np.ndarray]:
        """Gives each row."""
        return np.split(self.values, self.ends[:-1])

    def lists(self) -> np.ndarray:
        """Gives an array of a list for each row, as `tf.keras.datasets` has them."""
        listed = np.empty(len(self), object)
        listed[:] = [row.tolist() for row in self.rows()]
        return listed

    def padded(self, length: int, vocabulary: int, out_of_vocabulary: int) -> np.ndarray:
        """Makes rows of one length, int32: the end of longer ones, zeros before shorter ones.

        Args:
            length: Of each row.
            vocabulary: Values from here on become ``out_of_vocabulary``.
            out_of_vocabulary: Stands for all rare words.
        """
        starts = np.concatenate([[0], self.ends[:-1]])
        at = self.ends[:, np.newaxis] - np.arange(length, 0, -1)
        is_there = at >= starts[:, np.newaxis]
        rows = np.zeros(at.shape, np.int32)
        rows[is_there] = self.values[at[is_there]]
        rows[rows >= vocabulary] = out_of_vocabulary
        return rows
