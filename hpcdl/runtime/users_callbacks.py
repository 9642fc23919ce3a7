"""The user's callbacks: which of them run where, and what one that runs on rank 0 only is kept from.

Those of Keras that write run on rank 0 only, unless they say ``rank_0_only = False``, and so does one that says
``rank_0_only = True``; all others run on every rank.

Synopsis::

    users = of_this_rank(as_list(callbacks), topology.is_rank_0)
    with kept_apart(users, replicas):
        model.fit(..., callbacks=users)
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Callable, Iterator, List, Sequence

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.overriding import attributes
from hpcdl.runtime.replicas import Replicas

#: Keras' callbacks that write, or send, what one rank is enough for. OrbaxCheckpoint, which only Keras 3 has, waits for
#: other processes where JAX connects them, which under TensorFlow it never does.
_WRITERS = (
    "ModelCheckpoint",
    "TensorBoard",
    "CSVLogger",
    "ProgbarLogger",
    "OrbaxCheckpoint",
    "RemoteMonitor",
)
_HOOKS = [name for name in dir(tf.keras.callbacks.Callback) if name.startswith("on_")]


def as_list(callbacks: Any) -> List[Any]:
    """Lists the callbacks that a user passed.

    Args:
        callbacks: What Keras takes: a list of callbacks, one alone, or None.

    Raises:
        BadInput: One of them is no callback, or would save and resume on its own.
    """
    listed = [] if callbacks is None else tf.nest.flatten(callbacks)
    for callback in listed:
        if not isinstance(callback, tf.keras.callbacks.Callback):
            raise BadInput(
                "callbacks must be objects of classes derived from keras.callbacks.Callback; received"
                f" {callback!r:.80}; derive its class, or make an object of it"
            )
        if isinstance(callback, tf.keras.callbacks.BackupAndRestore):
            raise BadInput(
                "a run saves and resumes by itself; received the callback BackupAndRestore, which would resume a"
                " second time; take it away, and see checkpoint_every of run.fit"
            )
    return listed


def of_this_rank(callbacks: Sequence[Any], is_rank_0: bool) -> List[Any]:
    """Picks the callbacks that run on this rank.

    Args:
        callbacks: The user's, all of them.
        is_rank_0: Whether this is the rank that writes.
    """
    return [callback for callback in callbacks if is_rank_0 or not _is_of_rank_0(callback)]


def writes(callback: Any) -> bool:
    """Says whether a callback writes: one of Keras' that do, or one that runs on rank 0 only."""
    return _is_writer_of_keras(callback) or _is_of_rank_0(callback)


@contextmanager
def kept_apart(callbacks: Sequence[Any], replicas: Replicas) -> Iterator[None]:
    """Refuses what all ranks do together while a callback that runs on rank 0 only is called: the others never come.

    Args:
        callbacks: Of this rank.
        replicas: Of the run.
    """
    with ExitStack() as stack:
        for callback in callbacks if replicas.processes.size > 1 else ():
            if _is_of_rank_0(callback):
                hooks = {name: _apart(callback, name, replicas) for name in _HOOKS}
                stack.enter_context(attributes(callback, **hooks))
        yield


def _apart(callback: Any, name: str, replicas: Replicas) -> Callable[..., Any]:
    hook = getattr(callback, name)

    @wraps(hook)
    def apart(*args: Any, **kwargs: Any) -> Any:
        with replicas.parted(
            "every rank must call what all of them do together, such as run.evaluate; received a call from the callback"
            f" {type(callback).__name__}, which runs on rank 0 only; let its class say rank_0_only = False, or call"
            " what is a rank's own, such as self.model.evaluate or self.model.save"
        ):
            return hook(*args, **kwargs)

    return apart


def _is_of_rank_0(callback: Any) -> bool:
    return bool(getattr(callback, "rank_0_only", _is_writer_of_keras(callback)))


def _is_writer_of_keras(callback: Any) -> bool:
    classes = (getattr(tf.keras.callbacks, name, None) for name in _WRITERS)
    return isinstance(callback, tuple(found for found in classes if found is not None))
