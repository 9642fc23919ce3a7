"""The control runs of a benchmark: the same steps with something left out, to see what that costs.

They train nothing of use; only a benchmark's settings lead here.

Synopsis::

    replicas = WithoutExchange(processes, devices)      # in the place of Replicas(processes, devices)
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import tensorflow as tf

from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas


class WithoutExchange(Replicas):
    """Replicas that sum over their own process only while they are in a step, so that the ranks drift apart."""

    def __init__(self, processes: Any, devices: Sequence[str]) -> None:
        super().__init__(processes, devices)
        self._processes_in_step = Alone()


class FromMemory(WithoutExchange):
    """Replicas that besides take the first batch again and again, from memory."""

    def distribute(self, dataset: Callable[[], tf.data.Dataset]) -> Any:
        def first_step() -> tf.data.Dataset:
            return dataset().take(self.per_process).cache().repeat().prefetch(2 * self.per_process)

        return super().distribute(first_step)
