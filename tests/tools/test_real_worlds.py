"""What a step costs a rank of a real world: the table, and a world that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.common.errors import BadInput, HpcdlError
from tools import real_worlds


def test_the_table_has_the_middle_and_the_most_of_all_ranks() -> None:
    ranks = [{"step_us": step, "epoch_us": 10 * step} for step in (100.0, 300.0, 110.0)]
    (row,) = real_worlds.make_table({3: ranks}).rows
    assert row == ("3", "110", "300", "1100", "3000")


def test_a_world_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_worlds, "ROOT", tmp_path)  # where the program is not
    with pytest.raises(HpcdlError, match="1 ranks ended with status"):
        real_worlds.measure(1, tmp_path)


@pytest.mark.parametrize("ranks", ["0", "two", ""])
def test_what_is_no_number_of_ranks_is_refused(ranks: str) -> None:
    with pytest.raises(BadInput, match="--ranks"):
        real_worlds.main(["--ranks", ranks])
