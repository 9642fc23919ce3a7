"""The control run of a benchmark: the same steps without the exchange between processes, to see what that costs.

It trains nothing of use, since the ranks drift apart; only a benchmark's settings lead here.

Synopsis::

    replicas = WithoutExchange(processes, devices)      # in the place of Replicas(processes, devices)
"""

from __future__ import annotations

from typing import Any, Sequence

from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas


class WithoutExchange(Replicas):
    """Replicas that sum over their own process only while they are in a step."""

    def __init__(self, processes: Any, devices: Sequence[str]) -> None:
        super().__init__(processes, devices)
        self._processes_in_step = Alone()
