"""Python's search for garbage while TensorFlow is loaded: some hundred thousand objects, none of which is garbage.

Going through them again and again takes a fifth of the processor time in which a rank starts. When the process ends,
`hpcdl.runtime.ending` has all of them searched once.

Synopsis::

    search_rarely()              # first thing in a rank
    import tensorflow
    leave_out_what_is_loaded()   # then Python searches as often as it usually does, only in what came later
"""

from __future__ import annotations

import gc

#: How much rarer: a prime, by which no threshold that somebody else sets is likely to divide.
_RARER = 1009
#: Fewer objects than TensorFlow has; Python may spare some of its own from the beginning.
_FEW = 100_000


def search_rarely() -> None:
    """Makes the search rare, until `leave_out_what_is_loaded`; one that is rare already, or switched off, stays so."""
    first, *others = gc.get_threshold()
    if first % _RARER:
        gc.set_threshold(first * _RARER, *others)


def leave_out_what_is_loaded() -> None:
    """Spares all objects that there are, and undoes `search_rarely`; a threshold that somebody else set stays.

    A later call spares nothing more: garbage of a first training would stay for ever.
    """
    if gc.get_freeze_count() < _FEW:
        gc.freeze()
    first, *others = gc.get_threshold()
    if first and first % _RARER == 0:
        gc.set_threshold(first // _RARER, *others)
