"""The guard: what all replicas must hold alike is compared, so that a drift stops the run instead of spoiling it.

Synopsis::

    compare(replicas, synchronized_variables(model), when="step 100")
"""

from __future__ import annotations

import zlib
from typing import Any, Sequence

import numpy as np

from hpcdl.common.errors import Diverged
from hpcdl.runtime.replicas import Replicas


def compare(replicas: Replicas, variables: Sequence[Any], when: str) -> None:
    """Compares a checksum of each variable over all replicas; every rank calls it.

    Args:
        replicas: Of the run.
        variables: The same ones on each rank, such as weights and what the optimizer holds.
        when: For the message.

    Raises:
        Diverged: On every rank, with the first variable that differs and where.
    """
    if not variables:
        return
    of_copies = [[_checksum(copy) for copy in replicas.copies(variable)] for variable in variables]
    of_replicas = replicas.gather([np.array(row, np.int64) for row in zip(*of_copies)])
    differing = np.flatnonzero((of_replicas != of_replicas[0]).any(axis=0))
    if not differing.size:
        return
    first = differing[0]
    others = np.flatnonzero(of_replicas[:, first] != of_replicas[0, first])
    ranks = sorted({int(replica) // replicas.per_process for replica in others})
    raise Diverged(
        f"all ranks must hold the same variables; after {when} {variables[first].name} of rank(s)"
        f" {', '.join(map(str, ranks))}, replica(s) {', '.join(map(str, others))}, differs from replica 0's;"
        f" {differing.size} of {len(variables)} variables differ; change variables only in train_step, and alike"
    )


def _checksum(copy: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(copy.numpy()).tobytes())
