"""Simulated ranks ask the rendezvous for what real ones of Horovod were seen to ask for."""

from __future__ import annotations

import pytest

from tools.rendezvous_limit import measure, scopes_of


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
    assert expected <= requests <= 1.5 * expected
