"""Which versions of a package take each other's place.

Synopsis::

    release("2.15.0") == release("2.15.1")
"""

from __future__ import annotations

import re
from typing import Optional, Tuple


def release(version: str) -> Tuple[str, ...]:
    """Gives the numbers that a library built for a version of TensorFlow depends on: ("2", "15") of 2.15.1."""
    return tuple(re.findall(r"\d+", version)[:2])


def of_another_release(horovod: str, built_for: Optional[str], tensorflow: str) -> Optional[str]:
    """Says that a Horovod was built for another release of TensorFlow than this; None: it was not, or nobody tells."""
    if not built_for or release(built_for) == release(tensorflow):
        return None
    return f"Horovod {horovod} was built for TensorFlow {built_for}; this one is {tensorflow}"
