"""What hpcdl costs a rank in each step and at the start does not grow with the world."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import pytest

from hpcdl.launch.bench.tables import to_markdown
from tools.simulated_worlds import make_table, measure, works

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("topology", "batches", "share of a step", "record of a step", "agreement", "times of an epoch")
#: Bytes for each rank of the world, where something is read or gathered of each: a number of each node, a digest of
#: 32 bytes, a time.
BYTES_OF_A_RANK = {"topology": 3, "agreement": 3 * 32, "times of an epoch": 3 * 8}


def ratios(small, huge):
    return {name: us / small[name] for name, us in huge.items()}


def count_calls(do):
    """Counts calls of functions, in Python and in C: how much is done, on a machine as busy as it likes."""
    events = []
    sys.setprofile(lambda frame, event, _: events.append(event) if event in ("call", "c_call") else None)
    try:
        do()
    finally:
        sys.setprofile(None)
    return len(events)


def peak_bytes(do):
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Lists of all shares, and texts of all ranks, made some of these 600 and 1000 times dearer.
@pytest.mark.parametrize("name", NAMES)
def test_a_rank_of_a_huge_world_does_no_more_than_one_of_a_small_world(name, tmp_path):
    small, huge = (works(num_ranks, tmp_path)[name].do for num_ranks in (64, 27_360))
    small(), huge()  # what is done once
    assert count_calls(huge) <= count_calls(small) + 2
    assert peak_bytes(huge) <= peak_bytes(small) + BYTES_OF_A_RANK.get(name, 0) * 27_360 + 1000


def test_times_are_given_by_size_of_the_world(tmp_path):
    found = {ranks: measure(ranks, tmp_path) for ranks in (1, 64)}
    assert all(tuple(times) == NAMES for times in found.values())
    assert all(us > 0 for times in found.values() for us in times.values())
    assert [row[0] for row in make_table(found).rows] == ["1", "64"]


def test_the_table_of_the_docs_is_that_of_the_kept_record():
    record = json.loads((DOCS / "benchmarks" / "simulated-worlds" / "record.json").read_text())
    found = {int(ranks): times for ranks, times in record["microseconds"].items()}
    assert to_markdown(make_table(found)) in (DOCS / "benchmarking.md").read_text()
    assert {name: ratio for name, ratio in ratios(found[1], found[27_360]).items() if ratio > 10} == {}
