"""In float32 and in mixed precision a step in any world is near that of plain Keras in one process."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.launching import WORLDS_OF_TWO, run_program

#: What splitting a batch may change over 10 steps, in 16-bit arithmetic.
ROUNDING = {"mixed_float16": 1e-3, "mixed_bfloat16": 1e-2}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Gives the results of each rank; everything that the program does in one world is done in one launch."""
    folders = {}

    def of(how, policy, num_ranks=1, replicas=1):
        launch = (how, num_ranks, replicas)
        if launch not in folders:
            folders[launch] = tmp_path_factory.mktemp("-".join(map(str, launch)))
            run_program(
                folders[launch], "precision.py", how, folders[launch], np=num_ranks, replicas=replicas
            )
        return [np.load(folders[launch] / f"{policy}-{rank}.npz") for rank in range(num_ranks)]

    return of


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@WORLDS_OF_TWO
def test_an_overflow_on_one_replica_is_one_decision_of_all(num_ranks, replicas, policy, results):
    (expected,) = results("plain", policy)
    ranks = results("run", policy, num_ranks, replicas)
    if policy == "mixed_float16":
        assert len(set(expected["scales"])) > 2  # it did overflow, and grow again
    for rank in ranks:
        np.testing.assert_array_equal(rank["scales"], expected["scales"])
        np.testing.assert_array_equal(rank["weights"], ranks[0]["weights"])
        np.testing.assert_allclose(rank["weights"], expected["weights"], atol=ROUNDING[policy])


@WORLDS_OF_TWO
def test_in_float32_first_steps_and_losses_are_near_those_of_one_process(num_ranks, replicas, results):
    (expected,) = results("plain", "float32")
    assert len(expected["losses"]) == 50
    assert expected["losses"][-1] < expected["losses"][0] / 2  # it does learn
    for rank in results("run", "float32", num_ranks, replicas):
        assert np.abs(rank["steps"] - expected["steps"]).max() <= 1e-6
        np.testing.assert_allclose(rank["losses"], expected["losses"], rtol=0.01)
