"""Records as they are opened: what is of a wrong type is told once, before anything is made of it. Pure functions.

Synopsis::

    damaged(run, OF_RUN)                                # ["source", "memory.host_peak_bytes"]
    open_record(path, "study", 1, ("window",), {"source": is_source}, ("a study is a folder", "name another"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple, Union

from hpcdl.common.errors import BadInput
from hpcdl.common.records import check_schema, read_json

Check = Callable[[Any], bool]
#: Name -> what its value must be, where it is there: an object with such names inside, or what a check accepts.
Checks = Mapping[str, Union[Check, "Checks"]]

#: No number of bytes, samples or seconds is as large.
_MOST = 2.0**63


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be computed with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_source(value: Any) -> bool:
    """Whether a value says which commit of hpcdl ran; null: none is known."""
    return value is None or (
        isinstance(value, dict)
        and is_text(value.get("commit"))
        and isinstance(value.get("is_changed", ""), (bool, type(None)))  # null: git did not answer
    )


def or_null(check: Check) -> Check:
    """Also accepts null."""
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    """Accepts a list of what a check accepts."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def object_of(check: Check) -> Check:
    """Accepts an object with values that a check accepts."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


#: Of run.json, what others compute with or look into.
OF_RUN: Checks = {
    "topology": {"world_size": is_count},
    "config": {
        "replicas_per_process": is_count,
        "per_replica_batch_size": or_null(is_count),
        "global_batch_size": or_null(is_count),
        "samples_in_data": or_null(is_count),
        "precision": or_null(is_text),
    },
    "identity": {},
    "versions": {},
    "libraries": {},
    "source": is_source,
    "memory": object_of(or_null(is_number)),
    "gpu_use_percent": or_null(is_number),
    "clocks": object_of(object_of(is_number)),
    "samples_per_second": or_null(is_number),
    "epoch_seconds": list_of(is_number),
}


def damaged(record: Mapping[str, Any], checks: Checks) -> List[str]:
    """Names the values that are not what they must be."""
    found: List[str] = []
    for name, check in checks.items():
        if name not in record:
            continue
        value = record[name]
        if callable(check):
            if not check(value):
                found.append(name)
        elif isinstance(value, dict):
            found += [f"{name}.{inner}" for inner in damaged(value, check)]
        else:
            found.append(name)
    return found


def open_record(
    path: Path, kind: str, schema: int, needed: Sequence[str], checks: Checks, rule: Tuple[str, str]
) -> Dict[str, Any]:
    """Opens a record.

    Args:
        path: The file.
        kind: What it says that it is.
        schema: The one that is known.
        needed: What it must have.
        checks: What these must be.
        rule: What a user must name, and the way out.

    Raises:
        BadInput: It is none, damaged, or of a later hpcdl.
    """
    must, way_out = rule
    try:
        record = read_json(path)
    except OSError as problem:
        raise BadInput(f"{must}; received {path} ({problem.strerror or problem}); {way_out}") from problem
    except ValueError as problem:
        raise BadInput(f"{must}; received {path}, which is damaged: {problem}; {way_out}") from problem
    if record.get("kind") != kind:
        raise BadInput(f"{must}; received {path}, of kind {record.get('kind')!r}; {way_out}")
    check_schema(record, schema, path)
    wrong = [*(name for name in needed if name not in record), *damaged(record, checks)]
    if wrong:
        raise BadInput(f"{must}; received {path}, of which {', '.join(wrong)} cannot be read; {way_out}")
    return record
