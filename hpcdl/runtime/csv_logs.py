"""Keras' CSVLogger in a run that goes on: it would begin its file anew.

Synopsis::

    with continued(callbacks, epoch=3):         # the epochs that are done
        model.fit(..., callbacks=callbacks, initial_epoch=3)
"""

from __future__ import annotations

import csv
import io
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Sequence

import tensorflow as tf

from hpcdl.common.files import replace_text
from hpcdl.runtime.overriding import attributes


@contextmanager
def continued(callbacks: Sequence[Any], epoch: int) -> Iterator[None]:
    """Lets each CSVLogger go on with its file, and takes away the rows of epochs that are trained again.

    One that the user made with ``append=True`` is left alone: its file may hold rows of other fits.

    Args:
        callbacks: Of this rank.
        epoch: The first one that is trained now, counted from 0 as in the file.
    """
    with ExitStack() as stack:
        for callback in callbacks:
            if isinstance(callback, tf.keras.callbacks.CSVLogger) and not callback.append:
                _cut(Path(callback.filename), callback.sep, epoch)
                stack.enter_context(attributes(callback, append=True))
        yield


def _cut(path: Path, separator: str, epoch: int) -> None:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=separator))
    except FileNotFoundError:
        return
    kept = [row for row in rows if not _is_of_later_epoch(row, epoch)]
    if len(kept) < len(rows):
        table = io.StringIO()
        csv.writer(table, delimiter=separator).writerows(kept)
        replace_text(path, table.getvalue())


def _is_of_later_epoch(row: List[str], epoch: int) -> bool:
    return bool(row) and row[0].isdigit() and int(row[0]) >= epoch
