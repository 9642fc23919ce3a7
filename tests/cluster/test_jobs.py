"""Submitted jobs on a real Slurm: two nodes, four ranks, a script that stands in for training."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, List, Optional

import pytest

WEIRD = "a b'c\"d$HOME;e&f"


def test_a_cluster_describes_itself_and_its_profile_is_as_the_cluster(user: Any) -> None:
    assert user.reads("site", "verify", "box") == ["box: what this cluster can tell is as in the profile"]
    shown = "\n".join(user.reads("site", "show", "box"))
    for words in ("22.05", "queues.short.max_min", "queues.batch.default_min", "mpi "):
        assert words in shown


def test_ranks_run_on_all_nodes_with_the_users_words(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    words = ["two\nlines", "a 'b' \"c\" $HOME `id` ; |"]
    job_id = user.submits("-t", "5", "train.py", *words)
    assert user.reads("logs", "-f", job_id)[-1] == "ended"
    wait_for(lambda: slurm_state(job_id) == "COMPLETED")
    ranks = user.ranks()
    assert [(one["rank"], one["host"]) for one in ranks] == [
        (0, "node1"),
        (1, "node1"),
        (2, "node2"),
        (3, "node2"),
    ]
    assert all(one["words"] == words for one in ranks)
    assert {(one["cwd"], one["threads"]) for one in ranks} == {(str(user.folder), "1")}
    assert 200 < float(ranks[0]["end"]) - user.state()["started"] < 301
    assert user.reads("jobs")[0].split() == [job_id, "done", "train"]
    assert user.reads("logs", job_id, "--rank", "3")[-1] == "ended"


@pytest.mark.parametrize(
    ("bind", "expected"),
    [("none", [None] * 4), ("mask_gpu:0x3", ["0,1"] * 4), ("single:1", ["0", "1", "0", "1"])],
)
def test_ranks_see_all_gpus_of_their_node_to_pick_one_or_the_one_that_slurm_gives_them(
    user: Any, bind: str, expected: List[Optional[str]], wait_for: Callable[..., None]
) -> None:
    user.plants(gpu_bind=bind)
    user.submits("-t", "5", "--gpus-per-node", "2", "train.py")
    wait_for(lambda: user.state().get("state") == "done")
    assert [one["gpus"] for one in user.ranks()] == expected


def test_a_folder_with_blanks_and_quotes_is_said_to_slurm_as_it_is(user: Any) -> None:
    jobs = user.folder / WEIRD
    job_id = user.submits("-t", "5", "--jobs-dir", str(jobs), "-J", "it's mine", "train.py")
    assert user.reads("logs", "-f", job_id, "--jobs-dir", str(jobs))[-1] == "ended"
    (job,) = jobs.iterdir()
    assert (job / f"{job_id}_0_log.out").exists()


def test_edits_after_submission_do_not_reach_a_job_that_waits(
    user: Any, wait_for: Callable[..., None]
) -> None:
    job_id = user.submits("-t", "5", "--sbatch-arg=--begin=now+3", "train.py", "frozen")
    (user.folder / "train.py").write_text("raise SystemExit('edited')")
    wait_for(lambda: user.state().get("state") == "done")
    assert user.ranks()[0]["words"] == ["frozen"]
    assert user.reads("logs", job_id)[-1] == "ended"


def test_the_first_failing_rank_is_told_and_slurm_knows_that_the_job_failed(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = user.submits("-t", "5", "train.py", "fail")
    wait_for(lambda: slurm_state(job_id) == "FAILED")
    assert user.reads("logs", job_id, "--first-error")[0] == "rank 3 on node2: ValueError: boom"
    assert "failed rank 3 on node2 failed: ValueError: boom" in user.reads("jobs", job_id)[0]


def test_a_rank_that_is_killed_without_a_word_is_named(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = user.submits("-t", "5", "train.py", "kill")
    wait_for(lambda: slurm_state(job_id) == "FAILED")
    assert "rank 2" in user.state()["words"]
    assert "SIGKILL" in user.state()["words"]


def test_a_run_that_is_warned_saves_is_requeued_and_goes_on(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = user.submits("-t", "5", "train.py", "wait")
    wait_for(user.all_have_begun)
    # What Slurm sends before the time is over, to the ranks and not to their keeper.
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    wait_for(lambda: user.state().get("state") == "requeued")
    # A requeued job waits until its old credential is void, unless it is told to start.
    wait_for(lambda: slurm_state(job_id) == "PENDING")
    wait_for(lambda: user.state().get("state") == "done", timeout_s=90)
    assert user.state()["restarts"] == 1
    log = (user.job() / "logs" / "rank-0000.log").read_text()
    assert log.index("saved") < log.index("started again") < log.index("ended")
    wait_for(lambda: slurm_state(job_id) == "COMPLETED")


def test_where_requeue_is_forbidden_another_job_goes_on(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    user.plants(requeue=False)
    job_id = user.submits("-t", "5", "train.py", "wait")
    wait_for(user.all_have_begun)
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    wait_for(lambda: user.state().get("state") == "done", timeout_s=90)
    assert user.state()["restarts"] == 1
    log = (user.job() / "logs" / "rank-0000.log").read_text()
    assert log.index("saved") < log.index("started again") < log.index("ended")
    following, state, name = user.reads("jobs")[0].split()
    assert (following != job_id, state, name) == (True, "done", "train")
    assert slurm_state(job_id) == "FAILED"  # with 85: its steps are over, the run is not
    wait_for(lambda: slurm_state(following) == "COMPLETED")


def test_a_cancelled_job_saves_and_is_not_started_again(
    user: Any, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = user.submits("-t", "5", "train.py", "wait")
    wait_for(user.all_have_begun)
    assert user.types("cancel", job_id).returncode == 0
    wait_for(lambda: user.state().get("state") == "cancelled")
    wait_for(lambda: slurm_state(job_id) == "CANCELLED")
    assert "saved" in (user.job() / "logs" / "rank-0000.log").read_text()


def test_what_slurm_refuses_is_one_line_and_leaves_nothing(user: Any) -> None:
    argv = [
        "--site",
        "generic_slurm",
        "--image",
        "none",
        "-p",
        "short",
        "-N",
        "2",
        "-t",
        "1",
        "-c",
        "1",
        "--mem",
        "0",
    ]
    done = user.types("submit", *argv, "train.py")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hpcdl: Slurm refuses the job: Batch job submission failed")
    assert not (user.folder / "hpcdl-jobs").exists()


def test_when_is_answered_by_slurm_and_submits_nothing(user: Any) -> None:
    words = " ".join(
        user.reads("submit", "--site", "box", "-t", "1", "--gpus-per-node", "0", "--when", "train.py")
    )
    assert "to start at" in words
    assert not (user.folder / "hpcdl-jobs").exists()


def test_train_in_an_allocation_spans_it(user: Any) -> None:
    salloc = ["salloc", "--quiet", "-N2", "--ntasks-per-node=2", "-t", "2"]
    done = user.types("train", "--log-dir", "logs", "train.py", "word", before=salloc)
    assert done.returncode == 0, done.stderr
    assert "2 nodes x 2 processes" in done.stderr
    assert done.stdout.splitlines()[-1] == "ended"
    logs = sorted((user.folder / "logs").glob("rank-*.log"))
    assert ["node2" in log.read_text() for log in logs] == [False, False, True, True]
    failed = user.types("train", "--np", "4", "train.py", "fail", before=salloc)
    assert failed.returncode == 1
    assert "hpcdl: rank 3 on node2 failed: ValueError: boom" in failed.stderr


def test_train_in_an_allocation_spans_it_in_an_image(user: Any, image: str) -> None:
    salloc = ["salloc", "--quiet", "-N2", "--ntasks-per-node=2", "-t", "2"]
    script = user.folder / "train.py"
    script.write_text(f"import os\nprint(os.environ['APPTAINER_NAME'])\n{script.read_text()}")
    done = user.types("train", "--image", image, "--log-dir", "logs", "train.py", "word", before=salloc)
    assert done.returncode == 0, done.stderr
    assert "2 nodes x 2 processes" in done.stderr
    logs = [path.read_text() for path in sorted((user.folder / "logs").glob("rank-*.log"))]
    assert ["node2" in log for log in logs] == [False, False, True, True]
    assert [log.splitlines()[0] for log in logs] == [Path(image).name] * 4


def test_a_job_inside_another_is_refused(user: Any) -> None:
    done = user.types(
        "submit", "--site", "box", "-t", "1", "train.py", before=["srun", "-N1", "-n1", "-t", "1"]
    )
    assert done.returncode == 2
    assert "a job must not submit another one" in done.stderr
    assert Path(os.environ["SLURM_CONF"]).exists()
