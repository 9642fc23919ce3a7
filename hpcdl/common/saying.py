"""What hpcdl says to the user: one line on stderr, with its name before it; and numbers in words.

Synopsis::

    say("2 ranks on this node")                # hpcdl: 2 ranks on this node
    count(2, "rank")                           # "2 ranks"
    rate(0.1234)                               # "0.123"
"""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Prints a line at once: a rank that dies next would lose what is buffered."""
    print(f"hpcdl: {text}", file=sys.stderr, flush=True)


def count(number: int, one: str, many: str = "") -> str:
    """Writes a number of things; ``many`` is their word where it is not that of one and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def rate(per_second: float) -> str:
    """Writes it without digits that tell nothing, and a slow one not as 0."""
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.3g}"
