"""Real training over two nodes of a private Slurm, by each way of starting the ranks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def _learns(user: Any, launcher: str, image: str) -> Dict[str, Any]:
    options = ["--launcher", launcher, "--image", image, "--run-dir", str(user.folder / "run"), "--seed", "1"]
    job_id = user.submits("-t", "5", *options, "fashion_mnist/fc64", "--epochs", "1")
    shown = user.reads("logs", "-f", job_id)
    assert user.state()["state"] == "done", shown
    record: Dict[str, Any] = json.loads(next(user.folder.rglob("run.json")).read_text())
    assert (record["status"], record["topology"]["world_size"]) == ("done", 4)
    assert record["final_metrics"]["val_accuracy"] > 0.6
    return record


@pytest.mark.parametrize("launcher", ["gloo", "mpi", "mpirun"])
def test_four_ranks_on_two_nodes_learn_fashion_mnist(user: Any, launcher: str) -> None:
    _learns(user, launcher, "none")


@pytest.mark.parametrize("launcher", ["gloo", "mpi", "mpirun"])
def test_four_ranks_in_an_image_without_hpcdl_learn_fashion_mnist(
    ordinary_user: Any, image: str, launcher: str
) -> None:
    lacks = "import importlib.util as u; print([n for n in ('hpcdl', 'submitit') if u.find_spec(n)])"
    inside = subprocess.run(
        ["apptainer", "-s", "exec", image, "python3", "-I", "-c", lacks],
        capture_output=True,
        text=True,
        check=True,
    )
    assert inside.stdout.strip() == "[]"
    record = _learns(ordinary_user, launcher, image)
    assert ordinary_user.state()["image"]["sif_id"]
    assert record["versions"]["tensorflow"]


def _submits_batch_file(user: Any, image: str, *words: str) -> str:
    """Submits a batch file of jobs/ as it is but for the size of the cluster, and gives the number of the job."""
    text = (ROOT / "jobs/generic_slurm/horovod.sbatch").read_text()
    # 2 nodes of 2 cores and 2 GPUs instead of 32 and 4; and an account, which nobody asks for here.
    for there, here in (
        ("cpus-per-task=8", "cpus-per-task=1"),
        ("gpus-per-node=4", "gpus-per-node=2"),
        ("ntasks-per-node=4", "ntasks-per-node=2"),
        ("ntasks=8", "ntasks=4"),
        ("THREADS=8", "THREADS=1"),
        ("time=120", "time=5"),
        ("signal=URG@300", "signal=URG@30"),
        ("account=CHANGE_ME", "account=none"),
    ):
        assert there in text
        text = text.replace(there, here)
    (user.folder / "horovod.sbatch").write_text(text)
    environ = {**user.environ, "HPCDL": str(ROOT), "IMAGE": image}
    submit = ["sbatch", "--parsable", "horovod.sbatch", *words]
    done = subprocess.run(submit, cwd=user.folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def test_a_batch_file_of_jobs_trains_as_it_is_but_for_the_size_of_the_cluster(
    user: Any, image: str, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = _submits_batch_file(user, image, "--run-dir", "run", "fashion_mnist/fc64", "--epochs", "1")
    wait_for(lambda: slurm_state(job_id) in ("COMPLETED", "FAILED", "TIMEOUT"), timeout_s=240)
    said = (user.folder / f"hpcdl-horovod-{job_id}.log").read_text()
    assert slurm_state(job_id) == "COMPLETED", said
    record = json.loads((user.folder / "run" / "run.json").read_text())
    assert (record["status"], record["topology"]["world_size"]) == ("done", 4)
    assert len(list((user.folder / "hpcdl-logs").glob(f"{job_id}-*/rank-*.log"))) == 4


def test_a_batch_file_of_jobs_requeues_a_run_whose_ranks_do_not_stop_in_the_same_moment(
    user: Any, image: str, slurm_state: Callable[[str], str], wait_for: Callable[..., None]
) -> None:
    job_id = _submits_batch_file(user, image, "train.py", "wait")

    def logs() -> List[str]:
        return [path.read_text() for path in sorted(user.folder.glob("hpcdl-logs/*/rank-*.log"))]

    wait_for(lambda: [log.count("\n") for log in logs()] == [1] * 4)
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True)
    # For a moment it may be FAILED, since its script ends with 85. Then it waits until its old credential is void:
    # told to start before that, it was seen not to.
    wait_for(lambda: slurm_state(job_id) == "PENDING")
    wait_for(lambda: slurm_state(job_id) == "COMPLETED", timeout_s=120)
    assert "saved" in logs()[0]  # a second after the others had left
    assert [log.splitlines()[-1] for log in logs()[4:]] == ["ended"] * 4


#: 320 steps of half a second do not fit into 2 minutes; started again, they take no time at all.
SLOW_AT_FIRST = """
import os, sys, time
import numpy as np
import tensorflow as tf
import hpcdl

tf.keras.utils.set_random_seed(3)
run = hpcdl.init()
x = np.random.default_rng(5).normal(size=(256, 8)).astype("float32")
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dropout(0.2), tf.keras.layers.Dense(1)])
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss="mse")


class Slow(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" and sys.argv[1] == "slow":
            time.sleep(0.5)


run.fit(model, x, x.sum(axis=1), per_replica_batch_size=16, epochs=40, callbacks=[Slow()], verbose=0)
if os.environ["SLURM_PROCID"] == "0":
    arrays = [np.array(variable) for variable in [*model.weights, *model.optimizer.variables]]
    np.savez(os.environ["HPCDL_RUN_DIR"] + ".npz", *arrays)
"""


def test_a_run_longer_than_its_job_is_requeued_and_ends_with_the_bits_of_an_unbroken_one(
    user: Any, ordinary_user: Any, image: str, wait_for: Callable[..., None]
) -> None:
    """Two jobs at once: root's, which Slurm warns by a signal, and an ordinary user's in an image, by the clock."""
    cases = [(user, "none"), (ordinary_user, image)]

    def submits(someone: Any, inside: str, run: str, minutes: str, word: str) -> str:
        nodes = ["-N", "2", "--np", "2", "--gpus-per-node", "0", "-c", "1", "--mem", "3000M"]
        where = [*nodes, "-t", minutes, "-J", run]
        rest = ["--image", inside, "--seed", "1", "--run-dir", str(someone.folder / run), "slow.py", word]
        (job_id,) = someone.reads("submit", "--site", "box", *where, *rest)
        return str(job_id)

    for someone, inside in cases:
        (someone.folder / "slow.py").write_text(SLOW_AT_FIRST)
        submits(someone, inside, "unbroken", "10", "fast")
    for someone, _ in cases:
        wait_for(lambda someone=someone: someone.state().get("state") == "done", timeout_s=240)
    jobs = [submits(someone, inside, "broken", "2", "slow") for someone, inside in cases]
    stopped: Dict[str, str] = {}

    def have_stopped() -> bool:
        """Looks at both, since a job is in this state for no longer than Slurm takes to start it again."""
        for (someone, _), job_id in zip(cases, jobs):
            if job_id not in stopped and someone.state().get("state") == "requeued":
                (stopped[job_id],) = [
                    line for line in someone.reads("jobs", job_id) if line.startswith("run ")
                ]
        return len(stopped) == len(cases)

    wait_for(have_stopped, timeout_s=180)
    for (someone, _), job_id in zip(cases, jobs):
        assert f"{someone.folder / 'broken'}: stopped, " in stopped[job_id]
    for someone, _ in cases:
        wait_for(lambda someone=someone: someone.state().get("state") == "done", timeout_s=240)
        assert (someone.state()["exit_status"], someone.state()["restarts"]) == (0, 1)
        runs = [someone.folder / name for name in ("unbroken", "broken")]
        unbroken, broken = [(run / "history.csv").read_text() for run in runs]
        assert broken == unbroken
        with np.load(f"{runs[0]}.npz") as whole, np.load(f"{runs[1]}.npz") as resumed:
            assert len(whole.files) == len(resumed.files) > 4
            assert all(whole[name].tobytes() == resumed[name].tobytes() for name in whole.files)
        assert len(json.loads((runs[1] / "run.json").read_text())["resumed"]) == 1
