"""Runs as `hpcdl.init` makes them, without what it does to the process: pinning, threads, Horovod."""

from __future__ import annotations

import numpy as np

from hpcdl.common.bench import BenchSettings
from hpcdl.common.topology import Choice, Topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.training import Run


class TwoRanks(Alone):
    """Rank 0 of a world of two whose other rank must never be waited for."""

    size = 2

    def sum(self, tensors):
        raise AssertionError("a refusal must come before the first exchange")

    broadcast = gather = gather_json = sum


class Twins(Alone):
    """Rank 0 of a world of two whose other rank does the same, with the same part of the data."""

    size = 2

    def sum(self, tensors):
        return [2 * tensor for tensor in tensors]

    def gather(self, array):
        return np.stack([array, array])

    def gather_json(self, value):
        return [value, value]


def make_run(run_dir=None, processes=None, world_size=None, is_plan_only=False, bench=None, settings=None):
    """Makes a run of one replica in each process, as rank 0 sees it; alone by default."""
    processes = processes or Alone()
    size = world_size or processes.size
    topology = Topology(0, size, 0, size, 0, 1, "node1", "none" if size == 1 else "openmpi")
    choice = Choice("single" if size == 1 else "horovod", 1)
    replicas = Replicas(processes, ["CPU:0"])
    return Run(
        topology,
        choice,
        replicas,
        0,
        run_dir,
        is_plan_only,
        settings or RunSettings(),
        bench or BenchSettings(),
    )
