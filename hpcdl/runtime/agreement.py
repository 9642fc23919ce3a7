"""Ranks that would take different steps are stopped before one of them waits for the others for ever.

What decides a run is described as JSON, part by part. Ranks compare one digest of it; only where that differs digests
of the parts, and then the parts themselves, so that the message can say what differs, and not only that something does.

Synopsis::

    check(processes, describe(model, plan, identity, validation, interval))     # a collective
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.common.plan import Plan
from hpcdl.common.schedule import Interval
from hpcdl.runtime.identity import architecture, digest, first_difference, plain
from hpcdl.runtime.keras_edge import steps_per_execution
from hpcdl.runtime.record import versions

_MOST_DETAILS = 3

Parts = Mapping[str, Any]


def describe(
    model: Any, plan: Plan, identity: Mapping[str, Any], validation: Any, interval: Interval
) -> Parts:
    """Describes what must be the same on all ranks, as JSON.

    Args:
        model: Compiled, with its variables.
        plan: Of the run.
        identity: Of the run; here it gets the model itself in place of its digest.
        validation: The data of the validation (`hpcdl.runtime.sources.Source`); None without one.
        interval: How often a checkpoint is due, for which all ranks meet.
    """
    return {
        "versions": versions(),
        "script": _digest_of_file(sys.argv[0]),
        **{f"module {name}": content for name, content in modules_of_the_user().items()},
        # Ranks may find the same data in different places.
        "plan": plain(dataclasses.asdict(dataclasses.replace(plan, data_origin=None))),
        **identity,
        "model": architecture(model),
        "metrics": _metrics(model),
        "steps_per_execution": steps_per_execution(model),
        "run_eagerly": bool(model.run_eagerly),
        "checkpoint_every": plain(dataclasses.asdict(interval)),
        "validation": validation and {"spec": validation.spec, "content": validation.description},
    }


def modules_of_the_user() -> Dict[str, str]:
    """Gives a digest of each loaded module that is neither installed, nor Python's, nor hpcdl's.

    They go by name: nodes may have the same code in different places.
    """
    not_theirs = (
        str(Path(__file__).resolve().parents[1]),
        *map(sysconfig.get_path, ("stdlib", "platstdlib")),
    )
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        is_installed = {"site-packages", "dist-packages"} & set(path.split(os.sep))
        # Those that TensorFlow generates have other names in each process.
        is_no_source = not path.endswith(".py") or name.startswith("__")
        if is_installed or is_no_source or path.startswith(tuple(f"{place}{os.sep}" for place in not_theirs)):
            continue
        content = _digest_of_file(path)
        if content is not None:
            found[name] = content
    return found


def check(processes: Any, parts: Parts) -> None:
    """Compares the parts over the ranks; every rank calls it.

    What only some ranks have, such as a module that rank 0 alone draws with, is compared on those.

    Raises:
        BadInput: On every rank, with what differs between rank 0 and the first rank that is not like it.
    """
    mine = {name: digest(part) for name, part in parts.items()}
    # One number of each rank: texts of all of them would take a rank of a large world seconds to read.
    numbers = processes.gather(np.int64(int(digest(mine)[:15], 16)))
    if (numbers == numbers[0]).all():
        return
    of_ranks = processes.gather_json(mine)
    other = next((rank for rank, one in enumerate(of_ranks) if _contradict(of_ranks[0], one)), None)
    if other is None:
        return
    both = processes.gather_json(dict(parts) if processes.rank in (0, other) else None)
    details = list(differences(both[0], both[other]))
    more = f" and {len(details) - _MOST_DETAILS} more" if len(details) > _MOST_DETAILS else ""
    raise BadInput(
        f"all ranks must start alike; rank {other} differs from rank 0 in"
        f" {', '.join(details[:_MOST_DETAILS])}{more}; start all ranks with the same script, arguments, software and"
        " data (hpcdl gives each rank its share of them)"
    )


def differences(first: Parts, second: Parts) -> Iterator[str]:
    """Says of each part that differs where it does first: ``model config layers [1] config units (32, not 64)``."""
    for name in (name for name in first if name in second):
        found = first_difference(first[name], second[name])
        if found is not None:
            path, of_first, of_second = found
            where = " ".join([name, *path])
            yield f"{where} ({_short(of_second)}, not {_short(of_first)})"


def _contradict(first: Parts, second: Parts) -> bool:
    return any(first[name] != second[name] for name in first if name in second)


def _metrics(model: Any) -> Any:
    """Gives what compile() was told of metrics; None where a class of the user's cannot write itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as: a lambda is written as bytes
            config = model.get_compile_config()
        return [plain(config.get(name)) for name in ("metrics", "weighted_metrics")]
    except Exception:
        return None


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _digest_of_file(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return digest(file.read())
    except OSError:  # python -c, a prompt
        return None
