"""What a rank says when an error of hpcdl's own ends it: one line, and the error's exit status.

`init` installs it, for scripts that mpirun, srun or a user started; Python itself would print a traceback and leave
with status 1, whatever the error. All other errors are left to whatever was installed before.

Often all ranks meet the same error. Rank 0 speaks at once; the others give it a moment first, in which most
launchers end them, because a rank has left with a status that is not 0. So the line is there once; and where rank 0
is all right and waits for the others, they speak, leave, and their launcher ends rank 0.

Synopsis::

    install()
    raise BadInput("np must be positive; received 0; pass e.g. 2")      # one line, status 2
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Callable, Mapping, Optional, Type

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.failures import is_said_by_survivor
from hpcdl.common.saying import say
from hpcdl.common.topology import read_topology

#: How long a rank lets rank 0, or whoever is the cause, speak and leave first. mpirun then ends the others at once; but
#: on a busy machine TensorFlow and Horovod take some seconds to leave.
_GIVE_WAY_S = 10.0

Hook = Callable[[Type[BaseException], BaseException, Optional[TracebackType]], object]


def install() -> None:
    """Puts the hook into ``sys.excepthook``, before the one that is there; once is enough."""
    if not isinstance(sys.excepthook, _Uncaught):
        sys.excepthook = _Uncaught(sys.excepthook)


def tell(error: HpcdlError, environ: Mapping[str, str]) -> None:
    """Prints an error that ends this rank, as one line; rank 0 first where the ranks share a screen."""
    if not _is_first_to_speak(environ):
        _give_way(environ)
    if environ.get("HPCDL_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(type(error), error, error.__traceback__)
    say(str(error))


def let_the_cause_speak(error: BaseException, environ: Mapping[str, str]) -> None:
    """Waits a moment if this rank has only lost its connection because another one ended."""
    if is_said_by_survivor(str(error)):
        _give_way(environ)


class _Uncaught:
    """The hook. Leaving it by SystemExit is how a hook sets the exit status of Python."""

    def __init__(self, previous: Hook) -> None:
        self._previous = previous

    def __call__(
        self, kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]
    ) -> None:
        if isinstance(error, HpcdlError):
            tell(error, os.environ)
            if not hasattr(sys, "ps1"):  # a person at the prompt goes on
                raise SystemExit(error.exit_status)
            return
        let_the_cause_speak(error, os.environ)
        self._previous(kind, error, trace)


def _is_first_to_speak(environ: Mapping[str, str]) -> bool:
    try:
        return read_topology(environ, "").is_rank_0
    except BadInput:  # which may be the very error to tell
        return True


def _give_way(environ: Mapping[str, str]) -> None:
    if environ.get("HPCDL_STATUS_DIR"):
        return  # each rank has a log of its own, and hpcdl train tells the first failure once
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to be saved
    time.sleep(_GIVE_WAY_S)
