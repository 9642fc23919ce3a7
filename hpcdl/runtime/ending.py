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
    """Frees what a fit that has ended early left: in cycles of objects, or in the frames of the error that ended it."""
    for name in ("last_exc", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    gc.collect()
