"""How a process ends that reads data: its readers are let go of while Python is still there.

tf.data calls Python, such as the order of the samples or a user's generator, from threads of its own. Where the
interpreter is being taken down, it ends a thread that asks for it; and then whoever frees the reader waits for ever for
that thread, with the exit status, and with it the job, in its hands. So the readers have to go before.

Synopsis::

    install()
"""

from __future__ import annotations

import atexit
import gc
from typing import Any, Type


def install() -> None:
    """Lets go of readers when the script is over; once is enough."""
    atexit.unregister(_let_go_of_readers)
    atexit.register(_let_go_of_readers)


def _let_go_of_readers() -> None:
    """Empties the iterators over data, whoever still leads to them.

    A script's names may; of a model that fit has not finished, Keras 3 keeps the one over the validation data; others
    are in cycles of objects, or in the frames of the error that ended the script. Nothing else is freed here, since a
    thread that reads may be at work in it.
    """
    # What was spared the search for garbage may lead to readers too; and files in its cycles are closed at the end.
    gc.unfreeze()
    everything = gc.get_objects()
    # By type(), since to ask some objects for their class makes them load what they stand for.
    kinds = {kind for kind in set(map(type, everything)) if _is_iterator(kind)}
    for one in everything:
        if type(one) in kinds:
            vars(one).clear()


def _is_iterator(kind: Type[Any]) -> bool:
    """Says whether objects are TensorFlow's iterators: of data sets, and what reads ahead for several devices."""
    is_tensorflows = str(getattr(kind, "__module__", "")).startswith("tensorflow.")
    return is_tensorflows and kind.__name__.endswith("Iterator") and kind.__dictoffset__ != 0
