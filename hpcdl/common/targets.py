"""Whether what is to be trained is there, as far as that shows without TensorFlow and without the user's code.

The launch side asks before it starts ranks, a rank for itself where it comes to it; the words are the same.

Synopsis::

    check_target(command, os.environ)           # BadInput: a script, a module or a folder of data is not there
    check_module("--data", "my_module:data")
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import stat
import sys
from pathlib import Path
from typing import Iterable, List, Mapping

from hpcdl.common.checks import did_you_mean
from hpcdl.common.data_sets import named_places, no_folder
from hpcdl.common.errors import BadInput
from hpcdl.common.files import is_there
from hpcdl.common.words import TrainCommand, check_script
from hpcdl.common.workloads import SYNTHETIC
from hpcdl.common.workloads import get as get_workload


def check_target(command: TrainCommand, environ: Mapping[str, str]) -> None:
    """Refuses a command whose script, modules or folder of data are not on this machine.

    Raises:
        BadInput: One of them is not there.
    """
    kind, options = command.target_kind, command.options
    if kind == "script":
        check_script(command.target)
    elif kind == "function":
        check_module("TARGET", command.target)
        check_module("--data", str(options.data))
    else:
        data = get_workload(command.target).data
        # Only the first: where it has the data, no other is looked into.
        for label, folder in named_places(options.data_dir, environ)[:1]:
            if data != SYNTHETIC and _is_no_folder(folder):
                raise no_folder(f"{label} {folder}", data)


def check_module(what: str, name: str) -> None:
    """Refuses ``module:function`` if there is no such module, or no package that would hold it; nothing is imported.

    The working folder is put on Python's path for that.

    Args:
        what: The word that the user wrote it for, for messages.
        name: ``module:function``; either may be dotted.

    Raises:
        BadInput: There is none; near names are listed.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    first = name.partition(":")[0].partition(".")[0]
    try:
        is_there = importlib.util.find_spec(first) is not None
    except ValueError:  # it is loaded, as something that was not found so
        is_there = True
    if not is_there:
        raise no_module(what, name, first, [folder])


def no_module(what: str, name: str, missing: str, beside: Iterable[str]) -> BadInput:
    """Says that there is no module ``missing``, which ``name`` needs; near ones are in the folders ``beside``."""
    others = sorted(module.name for module in pkgutil.iter_modules(list(beside)))
    return BadInput(
        f"{what} must name a module that exists; received {name!r}, and there is no module {missing!r} in"
        f" {os.getcwd()} or on Python's path; {near(missing.rpartition('.')[2], others)}"
    )


def near(name: str, names: List[str]) -> str:
    """Asks for the near ones of the names, or tells the first of them."""
    hint = did_you_mean(name, names).rstrip()
    if hint:
        return hint
    return f"there are {', '.join(names[:10])}" if names else "check the spelling, and the folder you are in"


def _is_no_folder(path: Path) -> bool:
    """Says whether something else or nothing is there; where that cannot be known, it is left to who reads it."""
    try:
        return not is_there(stat.S_ISDIR, path)
    except OSError:
        return False
