"""The guard: what all replicas must hold alike is compared, so that a drift stops the run instead of spoiling it.

Synopsis::

    compare(replicas, synchronized_variables(model), when="step 100")
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import tensorflow as tf

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
    of_replicas = replicas.checksums(variables)
    differing = np.flatnonzero((of_replicas != of_replicas[0]).any(axis=0))
    if not differing.size:
        return
    first = differing[0]
    others = np.flatnonzero(of_replicas[:, first] != of_replicas[0, first])
    ranks = sorted({int(replica) // replicas.per_process for replica in others})
    cause = "change variables only in train_step, and alike"
    mine = tf.config.threading.get_intra_op_parallelism_threads()
    threads = sorted(set(replicas.processes.gather(np.int64(mine)).tolist()))
    if len(threads) > 1:
        # A norm of many weights, as of global_clipnorm, is added up in as many parts as there are threads.
        cause = (
            f"ranks with different numbers of threads (here {', '.join(map(str, threads))}) add in different orders;"
            " set TF_NUM_INTRAOP_THREADS alike on all"
        )
    raise Diverged(
        f"all ranks must hold the same variables; after {when} {variables[first].name} of rank(s)"
        f" {', '.join(map(str, ranks))}, replica(s) {', '.join(map(str, others))}, differs from replica 0's;"
        f" {differing.size} of {len(variables)} variables differ; {cause}"
    )
