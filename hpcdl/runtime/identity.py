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
from typing import Any, Dict, List, Mapping

import numpy as np
import tensorflow as tf

from hpcdl.common.plan import Plan

#: Rows of an array that its digest takes, evenly spaced: enough to tell data sets apart, at no cost.
_ROWS = 1024


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
        "loss_weights": plain(getattr(model, "loss_weights", None)),
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
    """Tells a nest of arrays from others, by shapes, dtypes and some rows."""
    return digest([_describe(array) for array in tf.nest.flatten(arrays)])


def digest(value: Any) -> str:
    """Gives sixteen hexadecimal digits for JSON, or for the content of a file."""
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> List[str]:
    """Says in words what differs between two identities."""
    said = []
    for name in new:
        before, after = old.get(name), new[name]
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            said += [f"{name} {words}" for words in differences(before, after)]
        else:
            said.append(f"{name} {_short(before)}, now {_short(after)}")
    return said


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _optimizer(optimizer: Any) -> Dict[str, Any]:
    inner = getattr(optimizer, "inner_optimizer", None) or optimizer
    config = {k: v for k, v in plain(inner.get_config()).items() if k not in ("name", "jit_compile")}
    return {"class": type(inner).__name__, **config}


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
        return [type(value).__name__, {k: v for k, v in plain(value.get_config()).items() if k != "name"}]
    return getattr(value, "__qualname__", type(value).__name__)


def _describe(array: np.ndarray) -> List[Any]:
    rows = array[:: max(1, len(array) // _ROWS)]
    return [list(array.shape), str(array.dtype), zlib.crc32(np.ascontiguousarray(rows).tobytes())]
