"""Other methods for one object, for a time: its class is replaced in place by a subclass of the same name.

The object keeps its state, and what it saves loads as the plain class.

Synopsis::

    with overridden(optimizer, apply=apply):
        model.fit(...)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator


@contextmanager
def overridden(target: Any, **attributes: Any) -> Iterator[type]:
    """Gives an object other methods or properties; yields its plain class, through which they reach the plain ones."""
    plain = type(target)
    subclass = type(plain.__name__, (plain,), {**attributes, "__module__": plain.__module__})
    subclass.__qualname__ = plain.__qualname__
    target.__class__ = subclass
    try:
        yield plain
    finally:
        target.__class__ = plain
