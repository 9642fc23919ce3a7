"""Files of a run: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import pytest

from hpcdl.common.records import (
    note_run_dir,
    one_of_each,
    read_history,
    read_json,
    read_run_dirs,
    write_history,
    write_json,
)


def test_a_record_comes_back_and_leaves_no_other_file(tmp_path):
    write_json(tmp_path / "run.json", {"status": "running"})
    write_json(tmp_path / "run.json", {"status": "done", "epochs": [1, 2]})
    assert read_json(tmp_path / "run.json") == {"status": "done", "epochs": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_record_is_json_also_where_a_value_is_no_number(tmp_path):
    nan, infinite = float("nan"), float("inf")
    write_json(tmp_path / "run.json", {"loss": nan, "rows": [{"a": -infinite}, (1, 0.5)], "is_so": True})
    assert "NaN" not in (tmp_path / "run.json").read_text()
    found = {"loss": None, "rows": [{"a": None}, [1, 0.5]], "is_so": True}
    assert read_json(tmp_path / "run.json") == found


def test_a_history_tells_a_value_that_is_no_number_from_none(tmp_path):
    write_history(tmp_path / "history.csv", {"loss": [0.5, float("nan")], "val_loss": [None, float("inf")]})
    assert str(read_history(tmp_path / "history.csv")) == "{'loss': [0.5, nan], 'val_loss': [None, inf]}"


def test_a_history_has_a_row_for_each_epoch(tmp_path):
    write_history(tmp_path / "history.csv", {"loss": [0.5, 0.25], "val_loss": [0.6, 0.7]})
    assert (tmp_path / "history.csv").read_text().split() == [
        "epoch,loss,val_loss",
        "1,0.5,0.6",
        "2,0.25,0.7",
    ]


@pytest.mark.parametrize("missing", [[], [None, None]])
def test_a_value_that_an_epoch_lacks_is_an_empty_cell(missing, tmp_path):
    write_history(tmp_path / "history.csv", {"loss": [0.9, 0.8, 0.7], "val_loss": [*missing, 0.75]})
    assert read_history(tmp_path / "history.csv") == {
        "loss": [0.9, 0.8, 0.7],
        "val_loss": [None, None, 0.75] if missing else [0.75, None, None],
    }
    rows = (tmp_path / "history.csv").read_text().split()
    assert rows[1:] == (["1,0.9,", "2,0.8,", "3,0.7,0.75"] if missing else ["1,0.9,0.75", "2,0.8,", "3,0.7,"])


def test_of_a_metric_with_several_columns_one_value_is_their_mean():
    history = {"loss": [0.5, 0.25], "f1[0]": [0.25, 0.5], "f1[1]": [0.75, 1.0], "top[k]": [1.0, 2.0]}
    assert one_of_each(history) == {"loss": [0.5, 0.25], "f1": [0.5, 0.75], "top[k]": [1.0, 2.0]}
    assert one_of_each({}) == {}
    assert one_of_each({"f1[0]": [None, 0.5], "f1[1]": [None, 1.0]}) == {"f1": [None, 0.75]}


def test_who_started_the_ranks_can_find_the_run(tmp_path):
    environ = {"HPCDL_STATUS_DIR": str(tmp_path)}
    assert read_run_dirs(tmp_path) == []
    for name in ("run", "run/fit-2", "run"):  # the last one after a restart
        note_run_dir(environ, tmp_path / name)
    note_run_dir({}, tmp_path / "other")
    assert read_run_dirs(tmp_path) == [tmp_path / "run", tmp_path / "run" / "fit-2"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_record_is_an_error(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words, or ours
        read_json(tmp_path / "run.json")
