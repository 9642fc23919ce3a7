"""The speed of reports is that of real ones, on as many records as are said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcdl.launch.bench.study import read_study
from tools.report_speed import STUDY, main, multiply


def test_a_study_of_copies_is_whole_and_has_as_many_records_as_it_says(tmp_path: Path) -> None:
    few = sum(1 for _ in STUDY.glob("round-*/*/measurement.json"))
    assert multiply(STUDY, tmp_path / "study", few + 1) == 2 * few
    study, copied = read_study(STUDY), read_study(tmp_path / "study")
    assert copied.num_rounds == 2 * study.num_rounds
    assert [row.rate.median for row in copied.rows] == [row.rate.median for row in study.rows]
    assert copied.problems == study.problems


def test_each_report_is_timed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    kept = tmp_path / "report-speed.json"
    assert main(["--records", "1", "--repeats", "1", "--json", str(kept)]) == 0
    record = json.loads(kept.read_text())
    assert {kind: len(of_kind) for kind, of_kind in record["seconds"].items()} == {
        "table": 1,
        "table and pictures": 1,
    }
    assert f"on {record['num_records']} records, 1 times" in capsys.readouterr().out
