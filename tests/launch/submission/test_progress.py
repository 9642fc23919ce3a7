"""What is said of a job's runs, from the files that they wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.common.records import note_run_dir, write_history, write_json
from hpcdl.common.step_times import StepLog
from hpcdl.launch.submission.progress import describe_run, run_lines


def test_each_run_that_rank_0_noted_has_a_line(tmp_path: Path) -> None:
    assert run_lines(tmp_path) == []
    for name in ("first", "first", "second", "third"):
        (tmp_path / name).mkdir(exist_ok=True)
        note_run_dir({"HPCDL_STATUS_DIR": str(tmp_path)}, tmp_path / name)
    write_json(tmp_path / "first" / "run.json", {"status": "stopped", "config": {"epochs": 12}})
    write_history(tmp_path / "first" / "history.csv", {"loss": [0.5, 0.25], "val_loss": [0.6, 0.3125]})
    (tmp_path / "second" / "run.json").write_text("[")
    first, second, third = run_lines(tmp_path)
    assert (
        first == f"run        {tmp_path / 'first'}: stopped, 2 of 12 epochs saved, loss 0.25, val_loss 0.3125"
    )
    assert "second: its record cannot be read: " in second
    assert third.endswith("third: about to begin")


def test_a_run_that_failed_says_why_and_one_without_a_checkpoint_has_no_values() -> None:
    record = {"status": "failed", "config": {"epochs": 3}, "error": "ValueError: boom"}
    assert describe_run(record, {}) == "failed, 0 of 3 epochs saved, ValueError: boom"
    assert describe_run({"status": "done", "samples_per_second": 1234.5}, {}) == "done, 1234 samples/s"


def test_a_value_that_the_last_epoch_lacks_is_not_told() -> None:
    record = {"status": "stopped", "config": {"epochs": 3}}
    history = {"loss": [0.5, 0.25], "val_loss": [0.75, None]}
    assert describe_run(record, history) == "stopped, 2 of 3 epochs saved, loss 0.25"


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_run_that_is_not_over_says_how_fast_its_last_steps_were(tmp_path: Path, status: str) -> None:
    config = {"epochs": 3, "num_samples": 300, "global_batch_size": 100}
    record = {"status": status, "config": config, "topology": {"world_size": 2}, "samples_per_second": 7.0}
    write_json(tmp_path / "run.json", record)
    note_run_dir({"HPCDL_STATUS_DIR": str(tmp_path)}, tmp_path)
    assert run_lines(tmp_path)[0].endswith("0 of 3 epochs saved, 7 samples/s")  # of an earlier start
    for rank, seconds in ((0, 0.25), (1, 0.5)):
        StepLog(tmp_path, rank, "n1").append(0, [30.0, seconds, seconds])
    assert run_lines(tmp_path)[0].endswith("0 of 3 epochs saved, 200 samples/s")
    write_json(tmp_path / "run.json", {**record, "status": "done"})
    assert run_lines(tmp_path)[0].endswith("0 of 3 epochs saved, 7 samples/s")
