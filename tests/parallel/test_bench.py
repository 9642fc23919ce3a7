"""What a benchmark does to a run: cut short, timed on each rank, and without the exchange only where it says so."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hpcdl.common.bench import BenchSettings
from hpcdl.common.step_times import read_step_times
from tests.parallel.launching import run_program


@pytest.mark.parametrize("without_exchange", [False, True])
def test_a_benchmark_cuts_the_run_and_each_rank_records_its_steps(tmp_path, without_exchange):
    settings = BenchSettings(steps=5, without_exchange=without_exchange)
    done = run_program(tmp_path, "benched.py", tmp_path / "run", np=2, environ=settings.to_environ())
    assert "this run is a benchmark" in done.stderr + done.stdout
    found = read_step_times(tmp_path / "run")
    assert found.problems == []
    # 10 samples are 2 whole steps of 4; 5 steps take 3 epochs of them.
    assert {rank: len(steps.step_seconds) for rank, steps in found.ranks.items()} == {0: 6, 1: 6}
    assert all(0 < seconds < 60 for steps in found.ranks.values() for seconds in steps.step_seconds)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "model.keras").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["bench"]["steps"] == 5
    assert not any(metric.startswith("val_") for metric in record["final_metrics"])
    weights = [np.load(tmp_path / "run" / f"weights-{rank}.npy") for rank in (0, 1)]
    assert (not np.array_equal(*weights)) == without_exchange


def test_two_runs_of_four_ranks_end_in_the_same_bits(tmp_path):
    digests = []
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        folder.mkdir()
        run_program(folder, "repeatable.py", folder, np=4)
        digests += [(folder / f"digest-{rank}").read_text() for rank in range(4)]
    assert len(set(digests)) == 1
