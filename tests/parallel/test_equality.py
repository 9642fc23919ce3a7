"""A step in any world equals the step of plain Keras in one process on the whole global batch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.launching import IS_OLDEST, WHERE_HOROVOD_DRIFTS, WORLDS_OF_TWO, run_program
from tests.parallel.programs.cases import CASES, IS_KERAS_3

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


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Gives the results of each rank; everything that a program does in one world is done in one launch."""
    folders = {}

    def of(how, case, num_ranks=1, replicas=1, launcher="mpi"):
        launch = (how, num_ranks, replicas, launcher)
        if launch not in folders:
            folders[launch] = tmp_path_factory.mktemp("-".join(map(str, launch)))
            cases = ",".join(cases_of(how, (num_ranks, replicas, launcher)))
            world = {"np": num_ranks, "replicas": replicas, "launcher": launcher}
            run_program(folders[launch], "equality.py", how, cases, folders[launch], **world)
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


@WHERE_HOROVOD_DRIFTS
def test_horovods_own_optimizer_fails_the_same_equality_under_keras_3(results):
    first, second = (rank["weights"] for rank in results("wrapped", "sgd", 2))
    (plain,) = results("plain", "sgd")
    assert np.abs(first - plain["weights"]).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3  # and nobody said so


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
