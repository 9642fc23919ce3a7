"""Other methods for one object, for a time.

Its class is replaced in place by a subclass of the same name, so that the object keeps its state, and what it saves
loads as the plain class. Where a library looks an attribute up in the object itself, or the object is a module, the
attribute is set and put back.

Synopsis::

    with overridden(optimizer, apply=apply), attributes(model, train_step=train):
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


@contextmanager
def attributes(target: Any, **values: Any) -> Iterator[None]:
    """Sets attributes of an object or a module, and puts back or takes away afterwards."""
    plain = {name: vars(target)[name] for name in values if name in vars(target)}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name in values:
            if name in plain:
                setattr(target, name, plain[name])
            else:
                delattr(target, name)
