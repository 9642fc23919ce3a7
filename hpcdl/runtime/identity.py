"""What makes a run the run that it is: a run folder belongs to one identity, and all ranks must have the same.

Model, optimizer, loss, data, global batch, learning-rate factor, precision and seed decide what a step does. Number
of epochs, ranks and strategy do not: a run may go on with others.

Synopsis::

    mine = identity(model, digest_of_arrays((x, y)), plan, seed=0, shuffle=True)
    digest(mine)[:8]                                       # "3f9a01c2"
    differences(recorded, mine)                            # ["global_batch_size 256, now 512"]
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.plan import Plan
from hpcdl.runtime.keras_edge import loss_weights

#: Rows of an array that go into its digest in one go, so that a large one needs no second one of its size.
_ROWS = 4096


def identity(model: Any, data: Any, plan: Plan, seed: int, shuffle: bool) -> Dict[str, Any]:
    """Describes what decides the steps of a run, as JSON.

    Args:
        model: Compiled and built, its weights as they are: they do not count.
        data: What tells the data to train on from others, as JSON.
        plan: Of the run.
        seed: Of the run.
        shuffle: Whether the samples are shuffled.
    """
    return {
        "model": digest(architecture(model)),
        "num_parameters": int(model.count_params()),
        "optimizer": _optimizer(model.optimizer),
        "loss": plain(model.loss),
        "loss_weights": plain(loss_weights(model)),
        "data": data,
        "num_samples": plan.num_samples,
        "global_batch_size": plan.batches.global_batch_size,
        "lr_factor": plan.factor,
        "warmup_epochs": plan.warmup_epochs,
        "precision": tf.keras.backend.floatx(),
        "shuffle": shuffle,
        "seed": seed,
    }


def digest_of_arrays(arrays: Any) -> str:
    """Tells a nest of arrays from others, by shapes, dtypes and all rows."""
    return digest([_describe(array) for array in tf.nest.flatten(arrays)])


def digest(value: Any) -> str:
    """Gives sixteen hexadecimal digits for JSON, or for the content of a file."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], architectures: Optional[Tuple[Any, Any]] = None
) -> List[str]:
    """Says in words what differs between two identities.

    Args:
        old, new: What `identity` gave.
        architectures: What `architecture` gave, of which the identities have digests; of these the first difference is
            said.
    """
    said = []
    for name in new:
        before, after = old.get(name), new[name]
        if before == after:
            continue
        found = first_difference(*architectures) if name == "model" and architectures is not None else None
        if found is not None:
            path, before, after = found
            name = " ".join([name, *path])
        if isinstance(before, dict) and isinstance(after, dict):
            said += [f"{name} {words}" for words in differences(before, after)]
        else:
            said.append(f"{name} {_short(before)}, now {_short(after)}")
    return said


def first_difference(first: Any, second: Any) -> Optional[Tuple[List[str], Any, Any]]:
    """Finds where two JSON values differ: the way there, and what stands there in each."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys: Sequence[Any] = list({**first, **second})
        pairs = [(str(key), first.get(key), second.get(key)) for key in keys]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(first, second))]
    else:
        return None if first == second else ([], first, second)
    for key, a, b in pairs:
        found = first_difference(a, b)
        if found is not None:
            return [key, *found[0]], found[1], found[2]
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _optimizer(optimizer: Any) -> Dict[str, Any]:
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer
    config = _config(inner)
    config.pop("jit_compile", None)
    return {"class": type(inner).__name__, **config}


def _config(thing: Any) -> Dict[str, Any]:
    """Gives the configuration of an object, without its name.

    Where a class of the user's has none: its attributes that are plain values, or a schedule of the learning rate.
    """
    try:
        config = thing.get_config()
    except (NotImplementedError, TypeError):
        schedule = tf.keras.optimizers.schedules.LearningRateSchedule
        config = {k: v for k, v in vars(thing).items() if _is_plain(v) or isinstance(v, schedule)}
    return {k: v for k, v in plain(config).items() if k.strip("_") != "name"}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.ndarray))


def architecture(model: Any) -> Any:
    """Describes layers and how they are joined, whatever names Keras counted up for them."""
    layers = list(model._flatten_layers())
    names = {layer.name: f"#{i}" for i, layer in enumerate(layers)}
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError):  # a model of the user's own class may have none
        config = None
    return {
        "layers": [
            [type(layer).__name__, [list(v.shape) for v in layer.trainable_variables]] for layer in layers
        ],
        "dtypes": [str(getattr(layer, "compute_dtype", None)) for layer in layers],
        # Keras 2 leaves it out of a layer's configuration.
        "synchronized": [bool(getattr(layer, "synchronized", False)) for layer in layers],
        "config": _renamed(plain(config), names),
    }


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_renamed(k, names): _renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, names) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Makes JSON of a configuration, without anything that changes from one start to the next."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if hasattr(value, "get_config"):
        return [type(value).__name__, _config(value)]
    return getattr(value, "__qualname__", type(value).__name__)


def _describe(array: np.ndarray) -> List[Any]:
    checksum = 0
    for begin in range(0, len(array), _ROWS):
        checksum = zlib.crc32(np.ascontiguousarray(array[begin : begin + _ROWS]).tobytes(), checksum)
    return [list(array.shape), str(array.dtype), checksum]
