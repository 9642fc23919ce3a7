"""Arguments that Keras' methods take and those of a run do not, or that nobody knows: one line with what to do.

Synopsis::

    refuse_unknown(run.fit, {"validation_split": 0.1})           # BadInput
    refuse_unnamed(run.fit, {"sample_weight": 32}, ())           # BadInput: a bare batch size
    verbosity("auto")                                            # 1
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hpcdl.common.checks import did_you_mean
from hpcdl.common.errors import BadInput

#: Arguments of Keras' that mean something here, but are said otherwise: the rule, and the way out.
_SAID_OTHERWISE = {
    "batch_size": (
        "a batch size must say of what",
        "pass per_replica_batch_size={value}, or global_batch_size for the samples of a whole step",
    ),
    "validation_split": (
        "what is validated on must be given, the same in every world",
        "split x and y, and pass the one part as validation_data=(x, y)",
    ),
    "validation_batch_size": (
        "validation has the batch size of the training",
        "leave it out, or call run.evaluate with one of its own",
    ),
    "validation_freq": ("every epoch is validated", "leave it out, or call run.evaluate where you want to"),
    "gradient_accumulation_steps": (
        "gradients are accumulated by the optimizer, which Keras 3 can do and Keras 2 cannot",
        "pass it to the optimizer, or under Keras 2 a larger global_batch_size",
    ),
    "initial_epoch": (
        "a run goes on where its run folder says that it was",
        "leave it out, and start the script again with a larger epochs",
    ),
}


def refuse_unnamed(method: Callable[..., Any], data: Mapping[str, Any], unnamed: Sequence[Any]) -> None:
    """Refuses what stands without a name where Keras' methods have the batch size and more.

    Args:
        method: Of the run.
        data: What was passed for its last arguments that need no name, by name.
        unnamed: What was passed beyond these.

    Raises:
        BadInput: There is a number in place of data, or anything beyond them.
    """
    for value in (*data.values(), *unnamed):
        if isinstance(value, (int, np.integer)):
            refuse_unknown(method, {"batch_size": value})
    if unnamed:
        names = [
            name
            for name, one in inspect.signature(method).parameters.items()
            if one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        raise BadInput(
            f"run.{method.__name__} takes {', '.join(names)} without their names, and all else by name; received"
            f" {unnamed[0]!r:.40} beyond them; write what it is, as in verbose=0"
        )


def refuse_unknown(method: Callable[..., Any], unknown: Mapping[str, Any]) -> None:
    """Refuses arguments that a method of a run does not have.

    Args:
        method: Of the run; it is called by its name.
        unknown: What was passed, by name.

    Raises:
        BadInput: There is one.
    """
    called = f"run.{method.__name__}"
    parameters = inspect.signature(method).parameters.values()
    known = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    for name, value in unknown.items():
        if name in _SAID_OTHERWISE:
            rule, way_out = _SAID_OTHERWISE[name]
            raise BadInput(f"{rule}; received {name}={value!r:.40}; {way_out.format(value=value)}")
        hint = did_you_mean(name, known, cutoff=0.6)
        raise BadInput(
            f"{called} takes the arguments that help({called}) lists; received {name}={value!r:.40}; {hint}"
            "leave it out, or correct its name"
        )


def verbosity(verbose: Any) -> int:
    """Gives Keras' number for what a user wants to see: 0 for nothing, 1 for a bar, 2 for a line in each epoch.

    Raises:
        BadInput: It is none of Keras' words for it.
    """
    if isinstance(verbose, str) and verbose == "auto":
        return 1
    try:
        return {0: 0, 1: 1, 2: 2}[verbose]
    except (KeyError, TypeError):
        raise BadInput(
            f"verbose must be one of Keras' 'auto', 0, 1 and 2; received {verbose!r:.40}; pass 0 to see nothing"
        ) from None
