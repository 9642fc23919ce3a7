"""A study of two nodes on a private Slurm: one job for each point, and a report from what they leave."""

from __future__ import annotations

import json
from typing import Any, Callable


def test_a_study_of_one_and_two_nodes_runs_through_slurm_and_is_reported(
    user: Any, wait_for: Callable[..., None]
) -> None:
    few = ["--repeat", "1", "--steps", "10", "--untimed-steps", "10", "-t", "5", "--image", "none"]
    words = ["bench", "--site", "box", "-N", "1,2", "--np", "2,4", "--gpus-per-node", "0", *few]
    words += ["--study", "study", "fashion_mnist/fc64"]
    assert "at most 0.25 node-hours in all" in "\n".join(user.reads(*words))
    records = user.folder / "study" / "round-000"

    def are_done() -> bool:
        runs = [records / name / "process-0" / "run.json" for name in ("weak-2", "weak-4")]
        return all(run.exists() and json.loads(run.read_text())["status"] == "done" for run in runs)

    wait_for(are_done, timeout_s=240.0)
    assert sum(line.endswith(": done") for line in user.reads(*words)) == 2
    (found,) = json.loads("\n".join(user.reads("bench", "report", "study", "--format", "json")))
    assert [(row["planned"]["num_nodes"], row["num_replicas"]) for row in found["rows"]] == [(1, 2), (2, 4)]
    assert found["problems"] == []
    files = (records / "weak-4" / "process-0" / "steps").glob("rank-*.jsonl")
    assert len({json.loads(file.read_text().splitlines()[0])["hostname"] for file in files}) == 2
    for name in ("weak-2", "weak-4"):
        (job,) = (records / name).glob("*/job.sbatch")
        assert "#SBATCH --nodes=" in job.read_text()
        assert "SLURM_JOB_ID=" in (job.parent / "env.txt").read_text()
