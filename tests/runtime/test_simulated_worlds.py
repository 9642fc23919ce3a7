"""What hpcdl costs a rank in each step and at the start does not grow with the world."""

from __future__ import annotations

from tools.simulated_worlds import make_table, measure


def test_a_rank_of_a_huge_world_does_no_more_than_one_of_a_small_world(tmp_path):
    found = {ranks: measure(ranks, tmp_path) for ranks in (64, 27_360)}
    small, huge = found.values()
    # Lists of all shares, and texts of all ranks, made these 600 and 1000 times dearer; a busy machine makes noise.
    for name in ("share of a step", "record of a step", "agreement"):
        assert huge[name] < 40 * small[name], name
    assert [row[0] for row in make_table(found).rows] == ["64", "27360"]
