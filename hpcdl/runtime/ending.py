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
import sys


def install() -> None:
    """Lets go of readers when the script is over; once is enough."""
    atexit.unregister(_let_go_of_readers)
    atexit.register(_let_go_of_readers)


def _let_go_of_readers() -> None:
    """Frees iterators over data: those that a name still leads to, and those that a fit which ended early has left.

    Of a model that fit has not finished, Keras 3 keeps the one over the validation data. Others are in cycles of
    objects, or in the frames of the error that ended the script.
    """
    for name in ("last_exc", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    gc.collect()
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return
    gc.unfreeze()  # among what `init` kept from the collector may be iterators
    everything = gc.get_objects()
    iterators = (tf.data.Iterator, tf.distribute.DistributedIterator)
    # By type(), since to ask some objects for their class makes them load what they stand for.
    kinds = {kind for kind in set(map(type, everything)) if issubclass(kind, iterators)}
    for one in everything:
        if type(one) in kinds:
            vars(one).clear()
    gc.freeze()  # or Python would go through all of it once more
