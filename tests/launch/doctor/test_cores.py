"""Each rank has the cores that it asked for, to itself, and no more threads than those."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Tuple

import pytest

from hpcdl.launch.doctor.cores import core_findings
from hpcdl.launch.doctor.verdict import Finding
from tests.launch.doctor.facts import layout, profile, seen

Spoil = Callable[[List[Dict[str, Any]]], Any]


def _judged(spoil: Spoil, cores: int = 2) -> List[Finding]:
    what = seen()
    spoil(what)
    planned = dataclasses.replace(layout(profile()), cores_per_process=cores)
    return [*core_findings(what, planned)]


def _threads(value: str) -> Spoil:
    return lambda seen: seen[3]["threads"].update(OMP_NUM_THREADS=value)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda seen: None, [("cores", "ok"), ("threads", "ok")]),
        (
            lambda seen: [one.update(cores=4, cpus="0-3") for one in seen],
            [("cores", "ok"), ("threads", "ok")],
        ),
        # Too many threads follow from too few cores: one fault, one finding.
        (lambda seen: seen[2].update(cores=1, cpus="0"), [("cores", "failed")]),
        (lambda seen: [one.update(cpus="0-1") for one in seen], [("cores", "failed")]),
        (_threads("64"), [("cores", "ok"), ("threads", "warning")]),
        (_threads("64,2"), [("cores", "ok"), ("threads", "warning")]),  # outer and inner ones
        (_threads("many"), [("cores", "ok"), ("threads", "ok")]),  # nobody reads that
        (lambda seen: [one["threads"].clear() for one in seen], [("cores", "ok"), ("threads", "ok")]),
    ],
)
def test_a_fault_of_cores_or_threads_turns_its_own_check(
    spoil: Spoil, expected: List[Tuple[str, str]]
) -> None:
    assert [(one.check, one.status) for one in _judged(spoil)] == expected


def test_one_core_for_all_ranks_of_a_node_is_told_also_where_each_asked_for_one() -> None:
    cores, *_ = _judged(lambda seen: [one.update(cores=1, cpus="5") for one in seen], cores=1)
    assert cores.status == "failed"
    assert cores.evidence == "2 ranks on node1 share 1 core (5), and asked for 1 each"


def test_more_threads_than_cores_are_told_with_what_sets_them() -> None:
    _, threads = _judged(_threads("64"))
    assert threads.evidence == "rank 3 on node2 has 2 cores and OMP_NUM_THREADS=64 (1 rank like it)"
    assert "environ" in threads.cure
