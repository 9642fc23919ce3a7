"""A step in any world equals the step of plain Keras in one process on the whole global batch."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.parallel.launching import IS_OLDEST, NEWEST_ONLY, run_program
from tests.parallel.programs.cases import CASES, IS_KERAS_3

#: What splitting a batch may change over 10 steps, in 16-bit arithmetic.
ROUNDING = {"mixed_float16": 1e-3, "mixed_bfloat16": 1e-2}
#: (num_ranks, replicas, launcher). Each generation of Keras tries another launcher where there are most replicas: where
#: ranks share their cores with other tests, MPI's busy wait doubles the time.
WORLDS = {
    "single": (1, 1, "mpi"),
    "mirrored": (1, 2, "mpi"),
    "horovod": (2, 1, "mpi"),
    "hybrid": (2, 2, "gloo" if IS_KERAS_3 else "mpi"),
    "horovod-4": (4, 1, "gloo" if IS_KERAS_3 else "mpi"),
}
COMPARED = sorted(name for name in CASES if CASES[name].equals != "none")
#: Four ranks differ from two in their number only: what depends on it.
BY_NUMBER = ["adam-uneven", "embedding", "masked", "scaled", "sgd-tiny", "synchronized", "tracking"]
#: Keras 2.12 and 2.15 differ in how an optimizer and a layer are called: what depends on it is tried in both, each
#: other case and world in one.
BY_CALL = ["adam-uneven", "legacy-adam", "several-steps", "sgd", "synchronized", "tracking"]
if IS_KERAS_3:
    _TRIED = {**dict.fromkeys(WORLDS, COMPARED), "horovod-4": BY_NUMBER}
elif IS_OLDEST:
    _TRIED = {"horovod": COMPARED, "hybrid": BY_CALL}
else:
    _TRIED = {**dict.fromkeys(WORLDS, COMPARED), "horovod": BY_CALL, "horovod-4": BY_NUMBER}


def tried(world):
    """Lists the cases that are compared in a world."""
    return _TRIED.get(world, [])


def cases_of(how, world):
    """Lists what one launch of a world does."""
    if how == "wrapped":
        return ["sgd"]
    if how == "plain":
        return [name for name in CASES if CASES[name].equals != "run"]
    compared = [case for name, w in WORLDS.items() if w == world for case in tried(name)]
    references = (
        [name for name in COMPARED if CASES[name].equals == "run"] if world == WORLDS["single"] else []
    )
    return sorted({*compared, *references, "own-statistics"})


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Gives the results of each rank; everything that a program does in one world is done in one launch."""
    folders = {}

    def of(how, case, num_ranks=1, replicas=1, launcher="mpi", program="equality.py"):
        launch = (program, how, num_ranks, replicas, launcher)
        if launch not in folders:
            folders[launch] = tmp_path_factory.mktemp("-".join(map(str, launch)))
            args = [how]
            if program == "equality.py":
                args.append(",".join(cases_of(how, (num_ranks, replicas, launcher))))
            world = {"np": num_ranks, "replicas": replicas, "launcher": launcher}
            run_program(folders[launch], program, *args, folders[launch], **world)
        return [np.load(folders[launch] / f"{case}-{rank}.npz") for rank in range(num_ranks)]

    return of


@pytest.mark.parametrize(("world", "case"), [(world, case) for world in WORLDS for case in tried(world)])
def test_every_strategy_equals_one_process_on_the_whole_batch(world, case, results):
    num_ranks, replicas, launcher = WORLDS[world]
    (expected,) = results(CASES[case].equals, case)
    ranks = results("run", case, num_ranks, replicas, launcher)
    for rank in ranks:
        assert set(rank.files) == set(expected.files)
        assert np.abs(rank["weights"] - expected["weights"]).max() <= 1e-12
        for name in expected.files:
            np.testing.assert_allclose(
                rank[name], expected[name], atol=CASES[case].metric_error, rtol=0, err_msg=name
            )
        np.testing.assert_array_equal(rank["weights"], ranks[0]["weights"])


WORLDS_OF_TWO = pytest.mark.parametrize(
    ("num_ranks", "replicas"), [(2, 2)] if IS_OLDEST else [(1, 2), (2, 1), (2, 2)]
)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@WORLDS_OF_TWO
def test_an_overflow_on_one_replica_is_one_decision_of_all(num_ranks, replicas, policy, results):
    (expected,) = results("plain", policy, program="precision.py")
    ranks = results("run", policy, num_ranks, replicas, program="precision.py")
    if policy == "mixed_float16":
        assert len(set(expected["scales"])) > 2  # it did overflow, and grow again
    for rank in ranks:
        np.testing.assert_array_equal(rank["scales"], expected["scales"])
        np.testing.assert_array_equal(rank["weights"], ranks[0]["weights"])
        np.testing.assert_allclose(rank["weights"], expected["weights"], atol=ROUNDING[policy])


@WORLDS_OF_TWO
def test_in_float32_first_steps_and_losses_are_near_those_of_one_process(num_ranks, replicas, results):
    (expected,) = results("plain", "float32", program="precision.py")
    assert len(expected["losses"]) == 50
    assert expected["losses"][-1] < expected["losses"][0] / 2  # it does learn
    for rank in results("run", "float32", num_ranks, replicas, program="precision.py"):
        assert np.abs(rank["steps"] - expected["steps"]).max() <= 1e-6
        np.testing.assert_allclose(rank["losses"], expected["losses"], rtol=0.01)


@pytest.mark.skipif(not IS_KERAS_3, reason="under Keras 2 Horovod's own optimizer averages in model.fit")
def test_horovods_own_optimizer_fails_the_same_equality_under_keras_3(results):
    first, second = (rank["weights"] for rank in results("wrapped", "sgd", 2))
    (plain,) = results("plain", "sgd")
    assert np.abs(first - plain["weights"]).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3  # and nobody said so


@pytest.mark.skipif(not IS_KERAS_3, reason="under Keras 2 Horovod's own optimizer averages in model.fit")
def test_the_guard_sees_ranks_that_horovods_own_optimizer_let_drift(tmp_path):
    done = run_program(tmp_path, "wrapped_guard.py", np=2, status=1)
    assert "all ranks must hold the same variables; after 10 steps" in done.stderr


@pytest.mark.parametrize(
    ("what", "when"), [("weight", r"after step 100 \S+ of"), ("average", r"after epoch 1 \S+ of")]
)
def test_what_is_changed_on_one_rank_stops_the_run(what, when, tmp_path):
    done = run_program(tmp_path, "perturbed.py", what, np=2, status=1)
    assert re.search(f"all ranks must hold the same variables; {when} rank\\(s\\) 1", done.stderr)


def test_what_is_changed_on_one_replica_of_a_process_stops_the_run(tmp_path):
    done = run_program(tmp_path, "perturbed.py", "copy", replicas=2, status=1)
    assert re.search(r"after step 100 \S+ of rank\(s\) 0, replica\(s\) 1, differs", done.stderr)
    # The same run says what it takes as a mean of the samples.
    assert done.stderr.count("one number for a whole batch is taken as the mean") == 1
    assert "add_loss() of summed, the loss function; a sum there" in done.stderr
    assert "replicas draw alike" not in done.stdout
    assert ("replicas draw numbers of their own" in done.stdout) == IS_KERAS_3


@NEWEST_ONLY
def test_ranks_that_would_save_at_other_steps_are_stopped_before_one_waits_for_the_other(tmp_path):
    done = run_program(
        tmp_path, "perturbed.py", "interval", np=2, status=2, environ={"HPCDL_CHECKPOINT_EVERY": ""}
    )
    assert "rank 1 differs from rank 0 in checkpoint_every" in done.stderr


@NEWEST_ONLY
def test_what_rank_0_alone_meets_is_told_by_itself_with_its_traceback(tmp_path):
    done = run_program(tmp_path, "perturbed.py", "error", np=2, status=1)
    assert "rank 0 on " in done.stderr
    assert "in look\n" in done.stderr
    assert "TypeError: " in done.stderr
    assert "rank 0 failed: TypeError" not in done.stderr


@WORLDS_OF_TWO
def test_replicas_with_statistics_of_their_own_end_an_epoch_with_equal_averages(num_ranks, replicas, results):
    (launcher,) = (
        of for (ranks, per_rank, of) in WORLDS.values() if (ranks, per_rank) == (num_ranks, replicas)
    )
    ranks = results("run", "own-statistics", num_ranks, replicas, launcher)
    averages = np.concatenate([rank["averages"] for rank in ranks])
    assert averages.shape[0] == num_ranks * replicas
    for of_replica in averages:
        np.testing.assert_array_equal(of_replica, averages[0])
    (plain,) = results("plain", "own-statistics")
    assert np.abs(averages[0] - plain["averages"][0]).max() > 1e-4  # they are means of parts
