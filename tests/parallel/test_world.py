"""What ranks do together in loops of a script's own: one start in each world notes all values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.parallel.launching import IS_OLDEST, NEWEST_ONLY, run_program
from tests.parallel.programs.cases import IS_KERAS_3

keras = tf.keras
#: The two versions of TensorFlow with Keras 2 try one each.
WORLDS = [
    *([pytest.param((2, 1, "mpi"), id="horovod")] if IS_KERAS_3 or IS_OLDEST else []),
    *([pytest.param((2, 2, "gloo"), id="hybrid")] if not IS_OLDEST else []),
]


@pytest.fixture(scope="module", params=WORLDS)
def world(request, tmp_path_factory):
    """Gives (number of replicas, what each rank noted, the folder, what was seen)."""
    num_ranks, replicas, launcher = request.param
    folder = tmp_path_factory.mktemp("world")
    done = run_program(folder, "world.py", folder, np=num_ranks, replicas=replicas, launcher=launcher)
    noted = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(num_ranks)]
    return num_ranks * replicas, noted, folder, done.stdout


def test_only_rank_0_prints_and_a_barrier_holds_the_others(world):
    _, ranks, _, seen = world
    assert [line for line in seen.splitlines() if line.startswith("said")] == ["said by rank = 0"]
    assert all(rank["was there"] for rank in ranks)


@NEWEST_ONLY
@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
def test_what_only_rank_0_calls_is_refused_by_the_rule_in_place_of_horovods_words(launcher, tmp_path):
    done = run_program(tmp_path, "left_alone.py", np=2, launcher=launcher, status=2)
    seen = done.stdout + done.stderr
    assert (
        "hpcdl: what ranks do together every rank must call; received a call on rank 0, in line 7 of " in seen
    )
    assert "while rank 1 had ended the script" in seen
    assert "shut down" not in seen


@NEWEST_ONLY
def test_what_is_refused_after_a_fit_leaves_what_that_has_written(tmp_path):
    done = run_program(tmp_path, "refused.py", "later", np=2, status=2)
    assert done.stderr.count("hpcdl: a batch size must say of what") == 1
    (run,) = tmp_path.glob("runs/*")
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert sorted(path.name for path in (run / "logs").glob("rank-*.log")) == [
        "rank-0000.log",
        "rank-0001.log",
    ]
    assert not (run / "fit-2").exists()


@NEWEST_ONLY
def test_what_is_refused_in_its_first_step_leaves_nothing(tmp_path):
    done = run_program(tmp_path, "refused.py", "step", np=2, status=2)
    assert done.stderr.count("hpcdl: the optimizer must take gradients that hpcdl has averaged") == 1
    assert list(tmp_path.iterdir()) == []


@NEWEST_ONLY
def test_a_script_computes_in_the_precision_that_its_user_says(tmp_path):
    run_program(tmp_path, "refused.py", "none", np=2, options=["--precision", "mixed_bfloat16"])
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json"))
    assert record["config"]["precision"] == "mixed_bfloat16"
    left = sorted(tmp_path.rglob("*"))
    done = run_program(tmp_path, "refused.py", "none", np=2, options=["--xla", "--fresh"], status=2)
    assert done.stderr.count("hpcdl: --xla compiles the steps of one replica in one process") == 1
    assert sorted(tmp_path.rglob("*")) == left


def test_shards_are_disjoint_and_of_one_length(world):
    _, ranks, _, _ = world
    whole, unknown, endless = zip(*(rank["shards"] for rank in ranks))
    assert whole == unknown == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert endless == ([0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 0])


def test_gradients_are_means_over_all_replicas_eagerly_and_in_a_graph(world):
    num_replicas, ranks, _, _ = world
    numbers = np.arange(num_replicas)
    for what, weights in (("means", np.ones(num_replicas)), ("weighted", numbers)):
        mean = float(np.average(numbers + 1, weights=weights))
        expected = [[mean, 2 * mean], [[0.0], [2 * mean], [0.0]], mean]  # rows of one index are added up
        for rank in ranks:
            for ((vector, rows, number),) in rank[what]:  # eagerly, in a graph
                for found, right in zip((vector, rows, number), expected):
                    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_variables_of_all_kinds_get_the_values_of_rank_0(world):
    _, ranks, _, _ = world
    expected = [5.0, 5, 5, True, [[0.5]] * 3, *([7.0] if hasattr(keras, "ops") else [])]
    assert [rank["broadcast"] for rank in ranks] == [expected] * len(ranks)


def test_a_loop_takes_the_steps_of_one_process_on_the_whole_batch(world):
    _, ranks, _, _ = world
    for rank in ranks:
        assert rank["error"] < 1e-12
        assert rank["moved"] > 0.1


def test_the_optimizer_of_a_loop_is_the_plain_one_afterwards(world):
    _, ranks, _, _ = world
    assert all(rank["is plain"] for rank in ranks)


def test_rank_0s_model_is_saved_for_plain_keras_and_nothing_else(world):
    _, ranks, folder, _ = world
    assert all(rank["saved"] for rank in ranks)
    assert [path.name for path in (folder / "new").iterdir()] == ["model.keras"]
    assert any(np.any(w) for w in keras.models.load_model(folder / "new" / "model.keras").get_weights())


def test_what_cannot_be_is_refused_on_all_ranks(world):
    num_replicas, ranks, folder, _ = world
    for rank in ranks:
        assert rank["no ending"][0] == "BadInput"
        assert "ends in .keras" in rank["no ending"][1]
        assert rank["no folder"][0] == "HpcdlError"
        assert "could not be saved" in rank["no folder"][1]
        if num_replicas > len(ranks):
            assert "outside of a step" in rank["outside"][1]
    assert not (folder / "model.h5").exists()
