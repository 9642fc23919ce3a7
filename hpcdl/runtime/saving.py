"""Models as files that plain Keras loads, whole or not there at all.

Synopsis::

    problem = save_model(model, Path("model.keras"))     # rank 0 alone
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.runtime.processes import from_rank_0


def save_model(model: Any, path: Path) -> Optional[str]:
    """Saves a model under a temporary name beside ``path``, then renames.

    Returns:
        Why Keras could not, as with a class of the user's own that cannot write itself; None if it did.

    Raises:
        OSError: The file system could not.
    """
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    try:
        model.save(str(temporary))
        os.replace(str(temporary), str(path))
    except (NotImplementedError, ValueError, TypeError, AttributeError) as problem:
        return _words(problem)
    finally:
        temporary.unlink(missing_ok=True)
    return None


def save_on_rank_0(processes: Any, model: Any, path: Path) -> None:
    """Lets rank 0 save a model while the others wait; a collective.

    Raises:
        BadInput: ``path`` does not end in ``.keras``; on all ranks.
        HpcdlError: The model could not be saved, or its folder not be made; on all ranks.
    """
    if path.suffix != ".keras":
        raise BadInput(
            f"a model is saved in Keras' own format; received {path}; give a name that ends in .keras"
        )

    def save() -> Optional[str]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return save_model(model, path)
        except Exception as problem:  # of whatever kind: all ranks raise the same one
            return _words(problem)

    problem = from_rank_0(processes, save)
    if problem is not None:
        raise HpcdlError(
            f"the model could not be saved as {path}: {problem}; nothing is left there of this attempt"
        )


def _words(problem: Exception) -> str:
    said = (isinstance(problem, OSError) and problem.strerror) or str(problem)
    return f"{type(problem).__name__}: {said}".splitlines()[0]
