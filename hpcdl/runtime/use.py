"""Whether this process has trained through hpcdl: a script that did not has, on several ranks, trained alone on each.

Synopsis::

    note_use(os.environ)                       # by `Run.fit`, and by what loops of a script's own call
    check_used("train.py", 2, os.environ)      # after the script: BadInput with the three lines
"""

from __future__ import annotations

import os
from typing import Mapping, MutableMapping

from hpcdl.common.errors import BadInput

#: Holds the process's number, so that a process that the script starts is not taken for it.
_USED_BY = "HPCDL_USED_BY"


def note_use(environ: MutableMapping[str, str]) -> None:
    """Notes that this process trains through hpcdl."""
    environ[_USED_BY] = str(os.getpid())


def check_used(script: str, world_size: int, environ: Mapping[str, str]) -> None:
    """Refuses a script that has ended without hpcdl in a world of several ranks.

    Raises:
        BadInput: With the three lines that it lacks.
    """
    if world_size > 1 and environ.get(_USED_BY) != str(os.getpid()):
        raise BadInput(
            f"a script that runs on several ranks must train through hpcdl; received {script}, which ended without, so"
            f" that each of {world_size} ranks did the same by itself; put in three lines: run = hpcdl.init()"
            " | with run.scope(): model = ... | run.fit(model, x, y, per_replica_batch_size=...) in place of model.fit"
        )
