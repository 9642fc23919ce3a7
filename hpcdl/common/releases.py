"""Which versions of a package take each other's place.

Synopsis::

    release("2.15.0") == release("2.15.1")
"""

from __future__ import annotations

import re
from typing import Tuple


def release(version: str) -> Tuple[str, ...]:
    """Gives the numbers that a library built for a version of TensorFlow depends on: ("2", "15") of 2.15.1."""
    return tuple(re.findall(r"\d+", version)[:2])
