"""Ready workloads on real ranks: each network as in one process, and made-up data never taken for real ones."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.bare import environ_of_script
from tests.parallel.launching import NEWEST_ONLY, run_program
from tests.parallel.programs.ready_workloads import NAMES


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folders = {ranks: tmp_path_factory.mktemp(f"{ranks}-ranks") for ranks in (1, 2)}
    run_program(folders[1], "ready_workloads.py", folders[1])
    run_program(folders[2], "ready_workloads.py", folders[2], np=2)
    return lambda name, ranks: [
        np.load(folders[ranks] / f"{name.replace('/', '-')}-{rank}.npz") for rank in range(ranks)
    ]


@NEWEST_ONLY
@pytest.mark.parametrize("name", NAMES)
def test_a_ready_network_takes_the_same_steps_on_two_ranks_as_alone(name, results):
    (alone,) = results(name, 1)
    for rank in results(name, 2):
        assert set(rank.files) == set(alone.files)
        for value in alone.files:
            np.testing.assert_allclose(rank[value], alone[value], rtol=0, atol=1e-9, err_msg=value)


def test_a_run_on_synthetic_data_says_so_in_its_plan_its_result_and_its_record(tmp_path):
    words = ["--np", "2", "--oversubscribe", "synthetic/transformer", "--global-batch-size", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl", "train", *words],
        cwd=tmp_path,
        env=environ_of_script(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = "synthetic tokens: random numbers (seed 0), not real data"
    assert f"  data          {said}\n" in done.stdout
    assert f"synthetic/transformer on {said}\n" in done.stdout
    (record,) = (
        json.loads(path.read_text()) for path in tmp_path.glob("runs/synthetic-transformer-*/run.json")
    )
    assert record["data"]["is_synthetic"] is True
    assert record["data"]["source"] == said
    assert record["final_metrics"]
