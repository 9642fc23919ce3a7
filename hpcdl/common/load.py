"""What else ran on this machine while something was measured.

The kernel counts the busy time of all processes, and the time that a hypervisor took away. Each measured process knows
what it used itself, with its children that have ended. The difference is foreign.

Synopsis::

    before = read_busy()
    ...                                                 # work, or processes that are waited for
    load = span(before, read_busy()).load
    load.cores                                          # 0.7: seven tenths of one core worked for others
    wait_until_calm(60.0)
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Sequence, Tuple

#: Foreign work above this, in cores for each core of the machine, flags what was measured meanwhile.
CALM_SHARE = 0.05


@dataclass(frozen=True)
class Busy:
    """A reading of the clocks, in seconds.

    Attributes:
        wall: A monotonic clock.
        machine: Busy time of all processes on all cores.
        stolen: Time in which a hypervisor let a core wait.
        own: Busy time of this process and of its children that have ended and were waited for.
    """

    wall: float
    machine: float
    stolen: float
    own: float


@dataclass(frozen=True)
class Load:
    """Foreign load during a measurement, as cores kept busy on average; of it ``stolen`` by a hypervisor."""

    cores: float
    stolen: float
    num_cores: int

    @property
    def is_calm(self) -> bool:
        """Whether the machine was the measurement's own, as good as."""
        return self.cores <= CALM_SHARE * self.num_cores


@dataclass(frozen=True)
class Span:
    """What the clocks of a machine have gone on between two readings, in seconds; see `Busy`."""

    seconds: float
    machine: float
    stolen: float
    own: float
    num_cores: int

    @property
    def load(self) -> Load:
        """The foreign load meanwhile."""
        seconds = max(self.seconds, 1e-9)
        stolen = self.stolen / seconds
        return Load(max(0.0, (self.machine - self.own) / seconds) + stolen, stolen, self.num_cores)


def read_busy(stat: Path = Path("/proc/stat")) -> Busy:
    """Reads the clocks."""
    times = os.times()
    machine, stolen = parse_stat(stat.read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
    own = times.user + times.system + times.children_user + times.children_system
    return Busy(time.monotonic(), machine, stolen, own)


def parse_stat(text: str, ticks_per_second: int) -> Tuple[float, float]:
    """Gives the busy and the stolen seconds in the text of ``/proc/stat``."""
    # cpu user nice system idle iowait irq softirq steal guest guest_nice; guests are counted in user already.
    fields = [int(field) for field in text.splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq) / ticks_per_second, steal / ticks_per_second


def span(before: Busy, after: Busy, num_cores: int = os.cpu_count() or 1) -> Span:
    """Subtracts two readings on one machine."""
    return Span(
        after.wall - before.wall,
        after.machine - before.machine,
        after.stolen - before.stolen,
        after.own - before.own,
        num_cores,
    )


def side_by_side(spans: Sequence[Span]) -> Span:
    """Joins what processes have seen that were measured together on one machine: none is foreign to the others."""
    return replace(spans[0], own=sum(one.own for one in spans))


def wait_until_calm(
    most_seconds: float,
    read: Callable[[], Busy] = read_busy,
    sleep: Callable[[float], None] = time.sleep,
    look_seconds: float = 2.0,
) -> bool:
    """Waits until the machine is calm; gives up after a time, and says whether it was."""
    waited = 0.0
    while True:
        before = read()
        sleep(look_seconds)
        waited += look_seconds
        if span(before, read()).load.is_calm:
            return True
        if waited >= most_seconds:
            return False
