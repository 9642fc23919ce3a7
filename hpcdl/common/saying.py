"""What hpcdl says to the user: one line on stderr, with its name before it.

Synopsis::

    say("2 ranks on this node")                # hpcdl: 2 ranks on this node
"""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Prints a line at once: a rank that dies next would lose what is buffered."""
    print(f"hpcdl: {text}", file=sys.stderr, flush=True)
