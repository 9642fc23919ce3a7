"""Checks of single values that come from a user: a name out of a list, a whole number, a factor.

Every check returns the value that it accepts and raises `BadInput` otherwise. ``what`` is the word that the
user wrote: an argument, an option or a variable of the environment.

Synopsis::

    one_of("lr_scaling", "liner", ("linear", "sqrt", "none"))   # BadInput: ... did you mean linear? ...
    epochs = whole_number("epochs", 12)
"""

from __future__ import annotations

import math
import operator
import re
from typing import Any, Iterable, List, Optional, Sequence

from hpcdl.common.errors import BadInput


def one_of(what: str, value: Any, names: Sequence[str]) -> str:
    """Accepts one of the names; the message lists them all, near ones first."""
    if isinstance(value, str) and value in names:
        return value
    hint = did_you_mean(str(value), names)
    raise BadInput(f"unknown {what} {value!r}; {hint}use one of {', '.join(names)}")


def near_ones(word: str, names: Iterable[str], most: int = 3, cutoff: float = 0.5) -> List[str]:
    """Gives the names that a word may have been meant for, the nearest first."""
    import difflib  # for those who have mistyped only: to load it takes as long as to parse a command line

    return difflib.get_close_matches(word, list(names), n=most, cutoff=cutoff)


def did_you_mean(word: str, names: Iterable[str], most: int = 3, cutoff: float = 0.5) -> str:
    """Asks for the near ones of the names, with a space behind; "" if none is near."""
    near = near_ones(word, names, most, cutoff)
    return f"did you mean {' or '.join(near)}? " if near else ""


def whole_number(what: str, value: Any, least: int = 1, most: Optional[int] = None) -> int:
    """Accepts an integer of any integer type (NumPy's too) from ``least`` to ``most``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    # True would pass as 1, and hides a wrong order of arguments.
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        limit = "" if most is None else f" and <= {most}"
        raise BadInput(
            f"{what} must be a whole number >= {least}{limit}; received {value!r}; pass e.g. {max(least, 1)}"
        )
    return number


def parse_whole_number(what: str, text: str, least: int = 1, most: Optional[int] = None) -> int:
    """Reads digits, and nothing else that `int` would take (``1_000``, ``+1``, `` 1``)."""
    number = int(text) if re.fullmatch("-?[0-9]{1,999}", text) else text  # Python reads no more than 4300
    return whole_number(what, number, least, most)


def parse_share(what: str, text: str) -> float:
    """Reads a number > 0 and <= 1; a percentage would pass for a share that nothing reaches."""
    number = parse_number(what, text)
    if number > 1:
        raise BadInput(f"{what} must be a number > 0 and <= 1; received {text!r}; pass e.g. 0.75")
    return number


def parse_number(what: str, text: str, positive: bool = True, example: str = "0.1") -> float:
    """Reads a finite number > 0, or >= 0 if not ``positive``; the message proposes ``example``."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise BadInput(
            f"{what} must be a number {'>' if positive else '>='} 0; received {text!r}; pass e.g. {example}"
        )
    return number
