"""Real training over two nodes of a private Slurm, by each way of starting the ranks."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Callable, Dict

import numpy as np
import pytest


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


def test_four_ranks_in_an_image_without_hpcdl_learn_fashion_mnist(ordinary_user: Any, image: str) -> None:
    lacks = "import importlib.util as u; print([n for n in ('hpcdl', 'submitit') if u.find_spec(n)])"
    inside = subprocess.run(
        ["apptainer", "-s", "exec", image, "python3", "-I", "-c", lacks],
        capture_output=True,
        text=True,
        check=True,
    )
    assert inside.stdout.strip() == "[]"
    record = _learns(ordinary_user, "gloo", image)
    assert ordinary_user.state()["image"]["sif_id"]
    assert record["versions"]["tensorflow"]


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
