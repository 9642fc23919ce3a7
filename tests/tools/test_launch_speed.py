"""What hpcdl adds to Slurm's own times: the table, and where nothing can be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import pytest

from hpcdl.common.errors import BadInput
from tools.launch_speed import in_turn, main, table


def _round(bare: float, own: float) -> Any:
    pair = {"bare": bare, "hpcdl": own}
    return {"submit": pair, "dry_run": pair, "first_step": pair}


def test_a_difference_is_the_median_of_the_rounds_own_differences() -> None:
    rounds = [_round(1.0, 1.5), _round(3.0, 3.4), _round(2.0, 2.6)]
    lines = table(rounds)
    assert "| Enter to job id | 2.00 s (`sbatch`) | 2.60 s | 0.50 s | < 1 s more |" in lines
    assert len(lines) == 2 + 3


def test_who_comes_first_changes_from_round_to_round() -> None:
    seen: List[str] = []
    for number in range(2):
        in_turn(number, bare=lambda: seen.append("bare") or 1.0, hpcdl=lambda: seen.append("hpcdl") or 2.0)
    assert seen == ["bare", "hpcdl", "hpcdl", "bare"]


def test_rounds_that_were_kept_are_shown_and_without_a_cluster_none_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPCDL_TEST_CLUSTER", raising=False)
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({"rounds": [_round(1.0, 1.5)]}))
    assert main(["--rounds", "0", "--json", str(kept)]) == 0
    assert capsys.readouterr().out.startswith("1 rounds; medians")
    with pytest.raises(BadInput, match="needs a cluster of its own"):
        main(["--rounds", "1"])
    with pytest.raises(BadInput, match="there must be rounds"):
        main(["--rounds", "0"])
