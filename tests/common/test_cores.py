"""Cores are grouped out of logical CPUs, and lists of CPUs are read and written in the kernel's form."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import pytest

from hpcdl.common.cores import format_cpu_list, group_cores, parse_cpu_list, siblings_of


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", (0,)), ("0-3\n", (0, 1, 2, 3)), ("0-1,8,10-11", (0, 1, 8, 10, 11)), ("", ())],
)
def test_the_kernels_cpu_lists_are_read(text: str, cpus: Tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_hyperthreads_of_one_core_stay_together() -> None:
    cores = group_cores(range(8), lambda cpu: (cpu % 4, cpu % 4 + 4))
    assert cores == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_only_cpus_that_may_be_used_are_in_a_core() -> None:
    assert group_cores([6, 1, 2], lambda cpu: (cpu % 4, cpu % 4 + 4)) == ((1,), (2, 6))


def test_a_cpu_whose_siblings_are_unknown_is_a_core() -> None:
    assert group_cores([3, 5], lambda cpu: ()) == ((3,), (5,))


@pytest.mark.parametrize("text", ["0", "0-3", "0-1,8,10-11", ""])
def test_what_is_written_is_the_kernels_list_again(text: str) -> None:
    assert format_cpu_list(parse_cpu_list(text)) == text


def test_the_siblings_are_read_where_the_kernel_tells_them(tmp_path: Path) -> None:
    file = tmp_path / "sys/devices/system/cpu/cpu5/topology/thread_siblings_list"
    file.parent.mkdir(parents=True)
    file.write_text("1,5\n")
    assert (siblings_of(5, tmp_path), siblings_of(6, tmp_path)) == ((1, 5), ())
