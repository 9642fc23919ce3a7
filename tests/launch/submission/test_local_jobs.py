"""Jobs on this machine, end to end through submitit's local and debug executors; scripts without TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import json, os, sys, time
from hpcdl.runtime.use import note_use
note_use(os.environ)  # as a script that trains does
rank = int(os.environ.get("HPCDL_RANK", "0"))
what = sys.argv[1]
count = 1 + len([name for name in os.listdir() if name.startswith(f"start-{rank}-")])
open(f"start-{rank}-{count}", "w").close()
print(f"rank {rank} {what} start {count}", flush=True)
if what == "requeue" and count < 3 or what == "always":
    sys.exit(85)
if what == "fail" and rank == 1:
    raise ValueError("boom")
if what == "die" and rank == 1:
    print("NCCL WARN Call to ibv_create_qp failed", flush=True)
    os.kill(os.getpid(), 9)
if what == "unseen":  # the launcher cannot read its report
    os.mkdir(os.path.join(os.environ["HPCDL_STATUS_DIR"], "rank-0000.json"))
    time.sleep(60)
if what == "wait":
    import signal
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(85))
    while True:
        time.sleep(0.05)
"""


class User:
    """Someone who types commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "train.py").write_text(SCRIPT)

    def types(self, *argv: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.folder)}
        environ = {
            name: value for name, value in environ.items() if not name.startswith(("SLURM_", "HPCDL_"))
        }
        command = [sys.executable, "-m", "hpcdl", *argv]
        return subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    def submits(self, *argv: str) -> str:
        done = self.types("submit", "--site", "local", "--oversubscribe", *argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self) -> Any:
        paths = list(self.folder.glob("hpcdl-jobs/*/state.json"))
        return json.loads(paths[-1].read_text()) if paths else {}


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def lines(user: User, *argv: str) -> List[str]:
    done = user.types(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_job_runs_in_the_background_and_is_seen_done(user: User) -> None:
    job_id = user.submits("--np", "2", "train.py", "hello")
    assert "rank 0 hello start 1" in lines(user, "logs", "-f", job_id)
    wait_for(lambda: user.state().get("state") == "done")
    assert lines(user, "logs", job_id, "--rank", "1") == ["rank 1 hello start 1"]
    assert lines(user, "jobs")[0].split() == [job_id, "done", "train"]
    listed = json.loads("\n".join(lines(user, "jobs", "--json")))
    assert [(one["job_id"], one["state"], one["num_ranks"]) for one in listed] == [(job_id, "done", 2)]
    assert "ranks      2 on 1 node, site local" in lines(user, "jobs", job_id)
    asked = json.loads("\n".join(lines(user, "jobs", job_id, "--json")))
    assert {**listed[0], "runs": []}.items() <= asked.items()
    assert asked["keeper"]["exit_status"] == 0


def test_a_run_that_stops_is_started_again_until_it_is_done(user: User) -> None:
    user.submits("train.py", "requeue")
    wait_for(lambda: user.state().get("state") == "done")
    assert user.state()["restarts"] == 2
    assert sorted(path.name for path in user.folder.glob("start-*")) == [
        "start-0-1",
        "start-0-2",
        "start-0-3",
    ]


def test_a_failure_is_told_by_logs_and_jobs(user: User) -> None:
    job_id = user.submits("--np", "2", "train.py", "fail")
    wait_for(lambda: user.state().get("state") == "failed")
    first = lines(user, "logs", job_id, "--first-error")
    assert first[0].endswith("ValueError: boom")
    assert "failed rank 1" in lines(user, "jobs", job_id)[0]


def test_of_a_rank_that_died_without_a_word_its_end_and_the_end_of_its_log_are_told(user: User) -> None:
    job_id = user.submits("--np", "2", "train.py", "die")
    wait_for(lambda: user.state().get("state") == "failed")
    told = lines(user, "logs", job_id, "--first-error")
    assert "was killed by SIGKILL" in told[0]
    assert "ulimit -l" in told[1]
    assert "NCCL WARN Call to ibv_create_qp failed" in told
    assert told[-1].endswith("rank-0001.log")
    assert any(line.startswith("that is") and "ulimit -l" in line for line in lines(user, "jobs", job_id))


def test_a_cancelled_job_is_not_started_again(user: User) -> None:
    job_id = user.submits("train.py", "wait")
    wait_for(lambda: list(user.folder.glob("start-0-1")))
    assert user.types("cancel", job_id).returncode == 0
    wait_for(lambda: user.state().get("state") not in (None, "running"))
    assert user.state()["state"] == "cancelled"
    assert len(list(user.folder.glob("start-*"))) == 1
    assert "over already" in user.types("cancel", job_id).stderr


def test_the_debug_executor_runs_here_and_now_and_has_the_runs_status(user: User) -> None:
    here = ("submit", "--site", "local", "--executor", "debug", "--oversubscribe")
    done = user.types(*here, "train.py", "hello")
    assert (done.returncode, done.stdout) == (0, "rank 0 hello start 1\n")
    failed = user.types(
        "submit", "--site", "local", "--executor", "debug", "--oversubscribe", "--np", "2", "train.py", "fail"
    )
    assert failed.returncode == 1
    assert "ValueError: boom" in failed.stdout
    (one, _) = sorted((user.folder / "hpcdl-jobs").iterdir())
    assert "has none: it ran at once (--executor debug)" in user.types("jobs", str(one)).stderr


def test_of_a_run_that_has_stopped_for_good_it_is_said_what_is_left_of_it(user: User) -> None:
    job_id = user.submits("--no-requeue", "train.py", "requeue")
    wait_for(lambda: user.state().get("state") == "stopped")
    (line,) = lines(user, "jobs")
    assert line.split(maxsplit=3) == [
        job_id,
        "stopped",
        "train",
        "with a checkpoint, not requeued: it must not be; submit it again to go on",
    ]


def test_a_job_without_a_scheduler_ends_as_stopped_where_nobody_would_start_it_again(user: User) -> None:
    user.submits("train.py", "always")
    wait_for(lambda: user.state().get("state") == "stopped", timeout_s=180.0)
    told = "with a checkpoint, not requeued: 5 restarts are enough; submit it again to go on"
    assert user.state()["words"] == told
    assert len(list(user.folder.glob("start-0-*"))) == 6


def test_a_word_for_a_scheduler_is_told_where_there_is_none(user: User) -> None:
    for_slurm = ("--partition", "GPU", "--gpus-per-node", "v100:8")
    done = user.types(
        "submit", "--site", "local", *for_slurm, "--time", "30", "--dry-run", "train.py", "done"
    )
    assert done.returncode == 0
    assert (
        "note         there is no scheduler here to ask; left out: --partition, --gpus-per-node\n"
        in done.stderr
    )


def test_of_a_benchmark_that_has_stopped_no_checkpoint_is_told(user: User) -> None:
    done = user.types("bench", "--site", "local", "--np", "1", "--study", "study", "train.py", "requeue")
    assert done.returncode == 1
    told = "before its steps were timed, with nothing saved; the same hpcdl bench command begins it again"
    assert f"hpcdl: stopped {told}\n" in done.stdout
    (path,) = user.folder.glob("study/*/*/*/state.json")
    state = json.loads(path.read_text())
    assert (state["state"], state["words"]) == ("stopped", told)


def test_a_run_that_cannot_be_watched_is_not_said_to_have_had_no_ranks(user: User) -> None:
    done = user.types(
        "submit", "--site", "local", "--executor", "debug", "--oversubscribe", "train.py", "unseen"
    )
    assert done.returncode == 1
    assert user.state()["state"] == "failed"
    assert user.state()["words"].startswith("the ranks were ended, as they could not be watched any more: ")


def test_unknown_jobs_and_ranks_are_bad_input(user: User) -> None:
    assert user.types("logs", "99").returncode == 2
    job_id = user.submits("train.py", "hello")
    refused = user.types("logs", job_id, "--rank", "1")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    wait_for(lambda: user.state().get("state") == "done")
