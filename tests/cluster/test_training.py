"""Real training over two nodes of a private Slurm, by each way of starting the ranks."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.parametrize("launcher", ["gloo", "mpi", "mpirun"])
def test_four_ranks_on_two_nodes_learn_fashion_mnist(user: Any, launcher: str) -> None:
    options = ["--launcher", launcher, "--run-dir", str(user.folder / "run"), "--seed", "1"]
    job_id = user.submits("-t", "5", *options, "fashion_mnist/fc64", "--epochs", "1")
    shown = user.reads("logs", "-f", job_id)
    assert user.state()["state"] == "done", shown
    record = json.loads(next(user.folder.rglob("run.json")).read_text())
    assert (record["status"], record["topology"]["world_size"]) == ("done", 4)
    assert record["final_metrics"]["val_accuracy"] > 0.6
