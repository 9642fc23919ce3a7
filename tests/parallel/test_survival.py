"""A run that is killed, or asked to stop, ends with the same bits as one that was not."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from hpcdl.common.errors import EXIT_REQUEUE
from tests.parallel.launching import IS_OLDEST, NEWEST_ONLY, ONE_OF_KERAS_2, run_program
from tests.parallel.programs.cases import IS_KERAS_3

#: World -> (num_ranks, replicas, launcher). Under Keras 3 each launcher tells of a death.
WORLDS = {
    "single": (1, 1, "mpi"),
    "mirrored": (1, 2, "mpi"),
    "horovod": (2, 1, "mpi"),
    "hybrid": (2, 2, "gloo" if IS_KERAS_3 else "mpi"),
}
#: The two versions of TensorFlow with Keras 2 share the worlds.
TRIED = [world for world in WORLDS if IS_KERAS_3 or (world == "hybrid") == IS_OLDEST]
EVERY_3_STEPS = {"HPCDL_CHECKPOINT_EVERY": "3steps"}


def survive(folder, *args, options=(), **world):
    environ = {**EVERY_3_STEPS, **world.pop("environ", {})}
    return run_program(
        folder, "survives.py", *args, options=["--run-dir", "run", *options], environ=environ, **world
    )


def results(folder, name, num_ranks):
    return [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(num_ranks)]


def assert_same(folder, num_ranks, other_folder):
    for mine, other in zip(results(folder, "out", num_ranks), results(other_folder, "out", num_ranks)):
        assert set(mine) == set(other)
        for name in mine:
            np.testing.assert_array_equal(mine[name], other[name], err_msg=name)


#: What a checkpoint must hold is most in 16-bit arithmetic, whose loss scale changes.
POLICY = ("--policy", "mixed_float16")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gives the folder of an unbroken run in a world; each is started once."""
    folders = {}

    def of(world):
        if world not in folders:
            num_ranks, replicas, launcher = WORLDS[world]
            folders[world] = tmp_path_factory.mktemp(f"whole-{world}")
            survive(folders[world], "out", *POLICY, np=num_ranks, replicas=replicas, launcher=launcher)
        return folders[world]

    return of


@pytest.mark.parametrize("world", TRIED)
def test_a_killed_run_starts_again_and_ends_with_the_same_bits(world, whole, tmp_path):
    num_ranks, replicas, launcher = WORLDS[world]
    launch = {"np": num_ranks, "replicas": replicas, "launcher": launcher}
    die = ["--die", f"{num_ranks - 1}:2:4"]
    done = survive(tmp_path, "out", *POLICY, *die, options=["--restarts", "1"], **launch)
    assert "was killed by SIGKILL" in done.stderr
    assert "going on with run after 2 epochs and 4 of 10 steps" in done.stdout + done.stderr
    assert_same(tmp_path, num_ranks, whole(world))


@ONE_OF_KERAS_2
def test_a_signal_to_one_rank_stops_all_in_the_same_step(whole, tmp_path):
    signal = [*POLICY, "--signal", "1:1:3"]
    survive(tmp_path, "out", *signal, np=2, status=EXIT_REQUEUE)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    survive(tmp_path, "out", *signal, np=2)
    resumed = json.loads((tmp_path / "run" / "run.json").read_text())["resumed"]
    assert [(r["epoch"], r["step"]) for r in resumed] == [(1, 5)]  # heard of in the step after the signal
    assert_same(tmp_path, 2, whole("horovod"))


@ONE_OF_KERAS_2
def test_a_callback_of_one_rank_ends_the_training_of_all(tmp_path):
    survive(tmp_path, "out", "--stop-training", "1:1:3", np=2)
    first, second = results(tmp_path, "out", 2)
    np.testing.assert_array_equal(first["weights"], second["weights"])
    assert len(first["loss"]) == 2
    np.testing.assert_array_equal(first["loss"], second["loss"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


@NEWEST_ONLY
def test_a_run_stops_before_its_end_time_with_a_checkpoint(tmp_path):
    done = survive(tmp_path, "out", "--epochs", "100000", "--ends-in", "25", np=2, status=EXIT_REQUEUE)
    ends = re.findall(r"the job ends at (\d+)", done.stdout)
    assert ends
    saved = [mark.stat().st_mtime for mark in (tmp_path / "run" / "checkpoints").glob("*/COMMIT")]
    assert max(saved) < min(map(int, ends))


@NEWEST_ONLY
def test_all_ranks_leave_together_where_a_later_fit_has_no_time_left(tmp_path):
    done = survive(tmp_path, "out", "--late-fit", np=2, status=EXIT_REQUEUE)
    assert (done.stdout + done.stderr).count("stopped before run/fit-2 begins, to be started again") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    assert not (tmp_path / "run" / "fit-2").exists()


@NEWEST_ONLY
def test_on_other_replicas_a_run_goes_on_with_the_same_batches_and_says_so(tmp_path):
    unbroken, as_many, fewer = (tmp_path / name for name in ("unbroken", "as-many", "fewer"))
    exact = ["--dropout", "0", "--policy", "float64"]
    for folder in (unbroken, as_many):
        folder.mkdir()
    survive(unbroken, "out", *exact)
    survive(as_many, "out", *exact, "--signal", "1:1:3", np=2, status=EXIT_REQUEUE)
    shutil.copytree(str(as_many), str(fewer))
    done = survive(as_many, "out", *exact, replicas=2)
    assert "on 2 replicas" not in done.stdout + done.stderr  # as many as before
    done = survive(fewer, "out", *exact)
    assert "on 1 replicas instead of 2" in done.stdout + done.stderr
    for folder in (as_many, fewer):
        (mine,), (expected,) = results(folder, "out", 1), results(unbroken, "out", 1)
        assert np.abs(mine["weights"] - expected["weights"]).max() <= 1e-12
        np.testing.assert_allclose(mine["loss"], expected["loss"], atol=1e-6, rtol=0)
    (before,) = results(as_many, "out", 1)
    # The first batch that is made would be the last of an epoch, with unequal parts.
    done = survive(as_many, "out", *exact, replicas=2)
    assert "is finished" in done.stdout + done.stderr
    np.testing.assert_array_equal(results(as_many, "out", 1)[0]["weights"], before["weights"])
