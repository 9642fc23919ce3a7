"""What a measurement ran, and with what software: two that differ in either are not put into one curve.

Synopsis::

    differing([software_of(measurement) for measurement in measurements])      # ["tensorflow (2.15.1, 2.21.0)"]
    differing([training_of_run(run) for run in runs])                          # ["precision (float32, mixed_float16)"]
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple, TypeVar

from hpcdl.launch.bench.measuring import Measurement

#: Name -> version, commit or digest; what is not known is left out.
Software = Mapping[str, str]
#: Name -> what decides how much a step has to compute; what is not known is left out.
Training = Mapping[str, str]

T = TypeVar("T")


def software_of(measurement: Measurement) -> Dict[str, str]:
    """Lists what a measurement ran with: versions, libraries, hpcdl's commit, the image."""
    known = software_of_run(measurement.runs[0] if measurement.runs else {})
    image = (measurement.card.get("job") or {}).get("image") or {}
    identity = image.get("sif_id") or image.get("real_path") or image.get("image")
    return {**known, "image": str(identity)} if identity is not None else known


def software_of_run(record: Mapping[str, Any]) -> Dict[str, str]:
    """Lists what a run says of it in its ``run.json``."""
    known = {**record.get("versions", {}), **record.get("libraries", {})}
    source = record.get("source")
    if source:
        known["commit"] = f"{source['commit'][:12]}{' and changes' if source['is_changed'] else ''}"
    return {name: str(value) for name, value in known.items() if value is not None}


def training_of_run(record: Mapping[str, Any]) -> Dict[str, str]:
    """Lists what a run trained, as far as a step takes its time for it: the rate at which it learns does not count."""
    identity, config = record.get("identity", {}), record.get("config", {})
    optimizer = identity.get("optimizer", {})
    parts = optimizer if isinstance(optimizer, dict) else {"": optimizer}
    known = {name: identity[name] for name in ("model", "loss", "loss_weights") if name in identity}
    known.update((name, config[name]) for name in ("precision", "xla") if name in config)
    known.update((f"optimizer {name}", value) for name, value in parts.items() if name != "learning_rate")
    return {name: str(value) for name, value in known.items()}


def distinct(found: Sequence[T]) -> Tuple[T, ...]:
    """Leaves out what is listed already, which need not be hashable."""
    seen: List[T] = []
    for one in found:
        if one not in seen:
            seen.append(one)
    return tuple(seen)


def differing(found: Sequence[Software]) -> List[str]:
    """Says what differs, with the values; what only some know (a rank alone loads no MPI) does not."""
    values = values_by_name(found)
    return [f"{name} ({', '.join(of_name)})" for name, of_name in sorted(values.items()) if len(of_name) > 1]


def values_by_name(found: Sequence[Software]) -> Dict[str, List[str]]:
    """Lists the values of each name, each once, in the order in which they come."""
    values: Dict[str, Dict[str, None]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, {})[value] = None
    return {name: list(of_name) for name, of_name in values.items()}
