"""Trains in two ways in turns, in one process or in ranks that start together, and writes the samples/s of each turn.

Each turn trains anew, and the way that was first in a round is second in the next.

Synopsis::

    hpcdl train tools/programs/turns.py keras fashion_mnist/cnn_dropout 12 30 OUT.json
    hpcdl train --np 2 tools/programs/turns.py input fashion_mnist/cnn_dropout 12 30 OUT.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import tensorflow as tf

import hpcdl
from hpcdl.common.records import write_json
from hpcdl.runtime import workloads
from hpcdl.runtime.record import now, versions
from tools.programs.plain_fit import BATCH_SIZE, Times

UNTIMED_STEPS = 10


def main(pair: str, name: str, rounds: int, timed_steps: int, record: Path) -> None:
    """Trains, and writes on rank 0: with the gradients' exchange in each step, its steps are those of all ranks."""
    run = hpcdl.init()
    workload = workloads.get(name)
    arrays = workload.arrays(workload.load(), "float32")
    steps = UNTIMED_STEPS + timed_steps
    num_samples = steps * BATCH_SIZE * run.num_replicas
    x, y = arrays.x_train[:num_samples], arrays.y_train[:num_samples]
    if len(x) < num_samples:
        raise SystemExit(
            f"{name} has {len(x)} samples, of which {num_samples} are needed; pass fewer --steps"
        )

    def by_keras(times: Any) -> None:
        workload.build().fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[times])

    def by_hpcdl(times: Any, *data: Any) -> None:
        with run.scope():
            model = workload.build()
        run.fit(model, *data, per_replica_batch_size=BATCH_SIZE, verbose=0, callbacks=[times])

    def one_batch(shard: Any) -> tf.data.Dataset:
        mine = slice(shard.index * BATCH_SIZE, (shard.index + 1) * BATCH_SIZE)
        return tf.data.Dataset.from_tensors((x[mine], y[mine])).cache().repeat(steps)

    pairs: Dict[str, Dict[str, Callable[[Any], None]]] = {
        "keras": {"run.fit": lambda times: by_hpcdl(times, x, y), "model.fit": by_keras},
        "input": {
            "from the data": lambda times: by_hpcdl(times, x, y),
            "one batch again and again": lambda times: by_hpcdl(times, one_batch),
        },
    }
    ways = pairs[pair]
    rates: Dict[str, List[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways) if number % 2 else reversed(list(ways)):
            times = Times()
            ways[way](times)
            seconds = times.ends[-1] - times.ends[UNTIMED_STEPS]
            num_timed = len(times.ends) - 1 - UNTIMED_STEPS
            rates[way].append(num_timed * BATCH_SIZE * run.num_replicas / seconds)
        of_round = ", ".join(f"{way} {of_way[-1]:.0f}" for way, of_way in rates.items())
        run.print(f"round {number + 1} of {rounds}: {of_round} samples/s", flush=True)
    if run.is_rank_0:
        write_json(record, {"samples_per_second": rates, "versions": versions(), "ended": now()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
