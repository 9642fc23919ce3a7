"""Simulated ranks ask the rendezvous for what real ones of Horovod were seen to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.common.errors import BadInput
from tools.rendezvous_limit import main, measure, of_pair, requests_without_repeats, scopes_of

ROOT = Path(__file__).resolve().parents[2]


def test_a_rank_joins_the_communicators_of_horovod() -> None:
    first = [(scope.name, scope.members) for scope in scopes_of(3, world_size=4, per_node=2)[:3]]
    assert first == [("global", (0, 1, 2, 3)), ("local_n1-1", (2, 3)), ("cross_1", (1, 3))]
    assert len(scopes_of(3, 4, 2)) == 6


def test_four_ranks_ask_as_often_as_four_of_horovod_and_the_server_ends() -> None:
    pytest.importorskip("horovod")
    took_s, server_s, requests = measure(4, per_node=2)
    assert server_s > 0
    assert took_s > 0
    # As recorded with Horovod 0.28.1: in each communicator of s ranks 2 s writes, s (s - 1) / 2 reads of names and
    # 2 s (s - 1) of addresses, s deletions; beside what is not there yet.
    sizes = [
        4,
        2,
        2,
        2,
        2,
    ] * 2  # global, two local ones and two cross ones, for the world and its process set
    expected = sum(2 * s + s * (s - 1) // 2 + 2 * s * (s - 1) + s for s in sizes)
    assert requests_without_repeats(4, per_node=2) == expected
    assert expected <= requests <= 1.5 * expected


def test_the_docs_show_of_the_requests_counted_what_the_tool_does() -> None:
    lines = (ROOT / "docs" / "launching.md").read_text().split("| ranks | requests |")[1].splitlines()[2:7]
    for line in lines:
        ranks, requests, without, for_each = (cell.strip() for cell in line.strip("|").split("|")[:4])
        assert int(without) == requests_without_repeats(int(ranks), per_node=8)
        assert for_each == f"{of_pair(int(requests), int(ranks)):.1f}"


@pytest.mark.parametrize("ranks", ["1", "0", "-2"])
def test_ranks_that_have_nobody_to_meet_are_refused(ranks: str) -> None:
    with pytest.raises(BadInput, match=f"2 ranks or more; received {ranks}; e.g. measure 16 32"):
        main(["measure", ranks])
