"""Whether this process has trained through hpcdl: a script that did not has, on several ranks, trained alone on each.

Synopsis::

    note_use(os.environ)                       # by `Run.fit`, and by what loops of a script's own call
    note_model(model, os.environ)              # by what `Run` does with a model besides
    check_used("train.py", 2, os.environ)      # after the script: BadInput with the three lines
    may_have_trained()                         # False: a script that leaves now has done nothing, as for --help
    check_at_end(world_size=2)                 # by `init`, for a script that nobody runs who would do that
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from typing import Any, Mapping, MutableMapping, Optional

from hpcdl.common.errors import BadInput
from hpcdl.runtime import uncaught

#: Holds the process's number, so that a process that the script starts is not taken for it, and what it did.
_USED_BY = "HPCDL_USED_BY"
_TRAINED, _LOOKED, _TRAINED_ALONE = "trained", "looked", "trained-alone"


def note_use(environ: MutableMapping[str, str]) -> None:
    """Notes that this process trains through hpcdl."""
    _note(_TRAINED, environ)


def note_model(model: Any, environ: MutableMapping[str, str]) -> None:
    """Notes that this process evaluates a model, predicts with it or saves it.

    A script may do no more than that. But if Keras itself has trained the model in this process, each rank has done so
    alone. That shows in the function of a step, which Keras makes as it begins to train, stores nowhere and drops where
    the model is compiled anew. What a loop of a script's own does to a model without hpcdl cannot be seen.
    """
    if _noted(environ) in (_TRAINED, _TRAINED_ALONE):
        return
    was_trained = getattr(model, "train_function", None) is not None
    _note(_TRAINED_ALONE if was_trained else _LOOKED, environ)


def check_used(script: str, world_size: int, environ: Mapping[str, str]) -> None:
    """Refuses a script that has ended without hpcdl in a world of several ranks.

    Raises:
        BadInput: With the three lines that it lacks.
    """
    if world_size > 1 and _noted(environ) not in (_TRAINED, _LOOKED):
        raise BadInput(
            f"a script that runs on several ranks must train through hpcdl; received {script}, which ended without, so"
            f" that each of {world_size} ranks did the same by itself; put in three lines: run = hpcdl.init()"
            " | with run.scope(): model = ... | run.fit(model, x, y, per_replica_batch_size=...) in place of model.fit"
        )


def may_have_trained() -> bool:
    """Whether TensorFlow has computed anything in this process; until then no model can have been trained."""
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return False
    threads = tf.config.threading
    before = threads.get_inter_op_parallelism_threads()
    try:
        threads.set_inter_op_parallelism_threads(before + 1)  # refused from then on
    except RuntimeError:
        return True
    threads.set_inter_op_parallelism_threads(before)
    return False


def check_at_end(world_size: int) -> None:
    """Checks when Python ends: a script that a bare mpirun started then says what it lacks, and leaves with status 2.

    Where an error ended it, that has been told, and has its status. With which one a script leaves by ``sys.exit`` is
    not to be seen from here, and status 2 takes its place: it has not used hpcdl, for whatever reason.
    """
    leave_check()
    atexit.register(_check_end, world_size, os.getpid())


def leave_check() -> None:
    """Takes `check_at_end` back: who runs the script looks after its end."""
    atexit.unregister(_check_end)


def _check_end(world_size: int, process: int) -> None:
    # A fork is not the script's end; and a person at the prompt goes on.
    if os.getpid() != process or hasattr(sys, "last_value") or hasattr(sys, "ps1"):
        return
    try:
        check_used(sys.argv[0], world_size, os.environ)
    except BadInput as error:
        uncaught.tell(error, os.environ)
        _leave_with(error.exit_status)


def _leave_with(status: int) -> None:
    """Sets the exit status of a Python that is about to end, and has settled on another one.

    C's exit() calls the function when all that Python does at its end is done, such as the hooks of others. os._exit
    here would leave that out, also that Horovod tells the other ranks.
    """
    c = ctypes.CDLL(None)
    c.fflush(None)
    c.__cxa_atexit(c._exit, ctypes.c_void_p(status), None)


def _note(what: str, environ: MutableMapping[str, str]) -> None:
    environ[_USED_BY] = f"{os.getpid()} {what}"


def _noted(environ: Mapping[str, str]) -> Optional[str]:
    """Gives what this process has noted last."""
    process, _, what = environ.get(_USED_BY, "").partition(" ")
    return what if process == str(os.getpid()) else None
