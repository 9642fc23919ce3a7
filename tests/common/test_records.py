"""Files of a run: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import pytest

from hpcdl.common.records import read_json, write_history, write_json


def test_a_record_comes_back_and_leaves_no_other_file(tmp_path):
    write_json(tmp_path / "run.json", {"status": "running"})
    write_json(tmp_path / "run.json", {"status": "done", "epochs": [1, 2]})
    assert read_json(tmp_path / "run.json") == {"status": "done", "epochs": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_history_has_a_row_for_each_epoch(tmp_path):
    write_history(tmp_path / "history.csv", {"loss": [0.5, 0.25], "val_loss": [0.6, 0.7]})
    assert (tmp_path / "history.csv").read_text().split() == [
        "epoch,loss,val_loss",
        "1,0.5,0.6",
        "2,0.25,0.7",
    ]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_record_is_an_error(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words, or ours
        read_json(tmp_path / "run.json")
