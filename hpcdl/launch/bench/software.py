"""What software a measurement ran with: two of different code are not put into one curve.

Synopsis::

    differing([software_of(measurement) for measurement in measurements])      # ["tensorflow (2.15.1, 2.21.0)"]
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from hpcdl.launch.bench.measuring import Measurement

#: Name -> version, commit or digest; what is not known is left out.
Software = Mapping[str, str]


def software_of(measurement: Measurement) -> Dict[str, str]:
    """Lists what a measurement ran with: versions, libraries, hpcdl's commit, the image."""
    run: Mapping[str, Any] = measurement.runs[0] if measurement.runs else {}
    known = {**run.get("versions", {}), **run.get("libraries", {})}
    source = run.get("source")
    if source:
        known["commit"] = f"{source['commit'][:12]}{' and changes' if source['is_changed'] else ''}"
    image = (measurement.card.get("job") or {}).get("image") or {}
    known["image"] = image.get("sif_id") or image.get("real_path") or image.get("image")
    return {name: str(value) for name, value in known.items() if value is not None}


def distinct(found: Sequence[Software]) -> Tuple[Software, ...]:
    """Leaves out what is listed already."""
    seen: List[Software] = []
    for one in found:
        if one not in seen:
            seen.append(one)
    return tuple(seen)


def differing(found: Sequence[Software]) -> List[str]:
    """Says what differs, with the values; what only some know (a rank alone loads no MPI) does not."""
    values: Dict[str, Dict[str, None]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, {})[value] = None
    return [f"{name} ({', '.join(of_name)})" for name, of_name in sorted(values.items()) if len(of_name) > 1]
