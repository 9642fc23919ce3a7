"""How Slurm writes time limits and amounts of memory.

Synopsis::

    minutes_of("1-12:30:00")            # 2190
    hours_of(2190)                      # "36:30"
    memory_mb_of("120G")                # 122880
"""

from __future__ import annotations

import re
from typing import Optional

from hpcdl.common.errors import BadInput


def minutes_of(text: str, what: str = "--time") -> int:
    """Reads a time limit in one of Slurm's forms, rounded up to minutes.

    ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``.

    Raises:
        BadInput: It has none of them, or is 0.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is not None:
        days, first, second, third = (None if part is None else int(part) for part in match.groups())
        if days is not None:
            seconds = ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
        elif third is not None:
            seconds = ((first or 0) * 60 + (second or 0)) * 60 + third
        else:
            seconds = (first or 0) * 60 + (second or 0)
        if seconds > 0:
            return -(-seconds // 60)
    raise BadInput(
        f"{what} must be minutes, H:MM:SS or D-H:MM:SS, and not 0; received {text!r}; e.g. 8:00:00"
    )


def hours_of(minutes: int) -> str:
    """Writes minutes as ``H:MM``."""
    return f"{minutes // 60}:{minutes % 60:02d}"


def memory_mb_of(text: str, what: str = "--mem") -> Optional[int]:
    """Reads an amount of memory as sbatch does; None: all of a node (``0``).

    Raises:
        BadInput: It is no such amount.
    """
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise BadInput(
            f"{what} must be like 120G, 4000M or 0 (all of the node); received {text!r}; e.g. 120G"
        )
    amount, unit = int(match.group(1)), match.group(2).upper() or "M"
    if amount == 0:
        return None
    return max(1, amount * {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}[unit] // 1024)
