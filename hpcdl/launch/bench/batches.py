"""The batches of a study's points: in weak scaling the same of each replica, in strong scaling the same in all.

What the words of a study contradict is refused before anything starts; what a script decides by itself, as soon as its
runs have said it.

Synopsis::

    for warning in check_batches(command, points):              # BadInput: --global-batch-size in weak scaling
        say(warning)
    check_batches_taken(points, {"weak-1": {0: measurement}, "weak-2": {0: other}})
"""

from __future__ import annotations

import itertools
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from hpcdl.common.errors import BadInput
from hpcdl.common.words import TrainCommand
from hpcdl.common.workloads import get as get_workload
from hpcdl.launch.bench.measuring import Measurement
from hpcdl.launch.bench.planning import PlannedPoint, most_replicas

#: What is the same at all points, by kind of scaling, and how a script says it.
_FIXED: Mapping[str, Tuple[str, str]] = {
    "weak": (
        "per_replica_batch_size",
        "give run.fit a per_replica_batch_size, or measure with --scaling strong",
    ),
    "strong": (
        "global_batch_size",
        "measure with --scaling weak, or give run.fit a batch size that hpcdl can set",
    ),
}


def check_batches(command: TrainCommand, points: Sequence[PlannedPoint]) -> List[str]:
    """Refuses points whose batches could not be what their kind of scaling says; gives warnings of what is not known.

    Raises:
        BadInput: A fixed global batch in weak scaling, or one that the replicas of a strong point do not divide.
    """
    options = command.options
    scalings = {point.scaling for point in points}
    if "weak" in scalings and options.global_batch_size is not None:
        raise BadInput(
            "weak scaling has a fixed batch of a replica; received"
            f" --global-batch-size {options.global_batch_size} with --scaling {','.join(sorted(scalings))}; pass"
            " --per-replica-batch-size, or --scaling strong"
        )
    parts = sorted({point.num_replicas for point in points if point.scaling == "strong"})
    name, size, each = "--global-batch-size", options.global_batch_size, 1
    if size is None:
        name, size, each = "--per-replica-batch-size", _per_replica_batch_size(command), most_replicas(points)
    uneven = ", ".join(str(part) for part in parts if (size or 1) * each % part)
    if uneven and size is None:
        return [
            f"{uneven} replicas take equal parts only if they divide {each} x the batch of a replica, on which"
            f" {command.target} decides"
        ]
    if uneven and size is not None:
        near = next(n for n in itertools.count(size) if not any(n * each % part for part in parts))
        raise BadInput(
            f"the replicas of every strong point must divide the global batch; received {size * each} samples and"
            f" {uneven} replicas; measure other points, or pass e.g. {name} {near}"
        )
    return []


def _per_replica_batch_size(command: TrainCommand) -> Optional[int]:
    """Gives the batch of a replica where no global one is given; None: the script or the function decides."""
    if command.options.per_replica_batch_size is not None or command.target_kind != "workload":
        return command.options.per_replica_batch_size
    return get_workload(command.target).recommended.per_replica_batch_size


def check_batches_taken(
    planned: Sequence[PlannedPoint], measured: Mapping[str, Mapping[int, Measurement]]
) -> None:
    """Refuses weak points whose replicas take other batches as they become more, and strong ones of another global one.

    Raises:
        BadInput: A script decides on its batches by itself.
    """
    for kind, (name, way_out) in _FIXED.items():
        found: Dict[int, str] = {}
        for point in planned:
            for measurement in measured[point.name].values() if point.kind == kind else ():
                found[int(measurement.runs[0]["config"][name])] = point.name
        if len(found) > 1:
            sizes = ", ".join(f"{size} at {point}" for size, point in found.items())
            raise BadInput(f"{kind} scaling needs the same {name} at all points; received {sizes}; {way_out}")
