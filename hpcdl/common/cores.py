"""The cores of this machine: physical ones, made of logical CPUs, and the kernel's short form for lists of CPUs.

Synopsis::

    group_cores(os.sched_getaffinity(0), siblings_of)     # ((0, 4), (1, 5)): two cores of two CPUs each
    parse_cpu_list("0-2,8"), format_cpu_list([0, 1, 2, 8])        # (0, 1, 2, 8), "0-2,8"
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterable, List, Tuple


def group_cores(
    cpus: Iterable[int], siblings: Callable[[int], Tuple[int, ...]]
) -> Tuple[Tuple[int, ...], ...]:
    """Groups logical CPUs by the physical core that they belong to, in the order of first CPUs.

    Neighbouring numbers share a socket on nearly every machine, so contiguous shares stay on one.

    Args:
        cpus: The CPUs that may be used.
        siblings: Gives all CPUs of a CPU's core, itself among them.
    """
    left = sorted(cpus)
    cores = []
    while left:
        core = tuple(cpu for cpu in left if cpu == left[0] or cpu in siblings(left[0]))
        left = [cpu for cpu in left if cpu not in core]
        cores.append(core)
    return tuple(cores)


def siblings_of(cpu: int, root: Path = Path("/")) -> Tuple[int, ...]:
    """Gives all CPUs of a CPU's core; none where the kernel does not tell."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    try:
        return parse_cpu_list(path.read_text(encoding="ascii"))
    except OSError:
        return ()


def parse_cpu_list(text: str) -> Tuple[int, ...]:
    """Reads the kernel's list form: ``0-2,8`` is 0, 1, 2, 8."""
    cpus: List[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Writes CPUs in the kernel's list form: 0, 1, 2, 8 is ``0-2,8``."""
    ranges: List[List[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def has_core_to_spare(num_gpus: int, cores: int) -> bool:
    """Whether a core of a rank is free for Horovod's waiting thread; computing on the CPU fills every one."""
    return num_gpus > 0 and cores > 1
