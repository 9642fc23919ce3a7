"""A step in any world equals the step of plain Keras in one process on the whole global batch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.launching import run_program, worlds
from tests.parallel.programs.cases import CASES, IS_KERAS_3

#: What splitting a batch may change over 10 steps, in 16-bit arithmetic.
ROUNDING = {"mixed_float16": 1e-3, "mixed_bfloat16": 1e-2}


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Gives the results of each rank for a case; all cases of one world are trained in one launch."""
    folders = {}

    def of(how, case, num_ranks=1, replicas=1, launcher="mpi"):
        world = (how, num_ranks, replicas, launcher)
        if world not in folders:
            folders[world] = tmp_path_factory.mktemp("-".join(map(str, world)))
            cases = {"wrapped": ["sgd"], "run": list(CASES)}.get(how)
            cases = ",".join(cases or [name for name in CASES if CASES[name].equals == "plain"])
            run_program(
                folders[world],
                "equality.py",
                how,
                cases,
                folders[world],
                np=num_ranks,
                replicas=replicas,
                launcher=launcher,
            )
        return [np.load(folders[world] / f"{case}-{rank}.npz") for rank in range(num_ranks)]

    return of


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize(
    ("num_ranks", "replicas", "launcher"),
    worlds(
        ("single", (1, 1, "mpi")),
        ("mirrored", (1, 2, "mpi")),
        ("horovod", (2, 1, "mpi", "oldest")),
        ("hybrid", (2, 2, "mpi", "oldest")),
        ("horovod-gloo", (4, 1, "gloo")),
    ),
)
def test_every_strategy_equals_one_process_on_the_whole_batch(case, num_ranks, replicas, launcher, results):
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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(("num_ranks", "replicas"), [(1, 2), (2, 1), (2, 2)])
def test_an_overflow_on_one_replica_is_one_decision_of_all(num_ranks, replicas, policy, tmp_path):
    world, plain = tmp_path / "world", tmp_path / "plain"
    world.mkdir()
    plain.mkdir()
    run_program(plain, "overflow.py", "plain", policy, plain)
    run_program(world, "overflow.py", "run", policy, world, np=num_ranks, replicas=replicas)
    expected = np.load(plain / f"{policy}-0.npz")
    ranks = [np.load(world / f"{policy}-{rank}.npz") for rank in range(num_ranks)]
    if policy == "mixed_float16":
        assert len(set(expected["scales"])) > 2  # it did overflow, and grow again
    for rank in ranks:
        np.testing.assert_array_equal(rank["scales"], expected["scales"])
        np.testing.assert_array_equal(rank["weights"], ranks[0]["weights"])
        np.testing.assert_allclose(rank["weights"], expected["weights"], atol=ROUNDING[policy])


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


def test_a_weight_changed_on_one_rank_stops_the_run(tmp_path):
    done = run_program(tmp_path, "perturbed.py", np=2, status=1)
    assert "all ranks must hold the same variables" in done.stderr
    assert "rank(s) 1" in done.stderr
