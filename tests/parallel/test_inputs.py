"""Data sets of all kinds train, evaluate and predict as plain Keras does in one process on the same global batches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parallel.launching import IS_OLDEST, NEWEST_ONLY, ONE_OF_KERAS_2, run_program
from tests.parallel.programs.cases import IS_KERAS_3
from tests.parallel.programs.inputs import ALONE, EPOCHS, GLOBAL_BATCH_SIZE, KINDS, NUM_SAMPLES

WORLDS = {"single": (1, 1), "mirrored": (1, 2), "horovod": (2, 1), "hybrid": (2, 2)}
#: Kind -> that with the same batches.
SAME_BATCHES = {"counted": "dataset"}
#: The two versions of TensorFlow with Keras 2 share the worlds; that of one process is what plain Keras is in, too.
TRIED = [world for world in WORLDS if IS_KERAS_3 or world == "single" or (world == "hybrid") == IS_OLDEST]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Gives the folder of what a world has written; each is started once."""
    folders = {}

    def of(world):
        if world not in folders:
            num_ranks, replicas = WORLDS[world]
            folders[world] = tmp_path_factory.mktemp(world)
            run_program(folders[world], "inputs.py", folders[world], np=num_ranks, replicas=replicas)
        return folders[world]

    return of


@pytest.mark.parametrize(
    ("world", "kind"),
    [(world, kind) for world in TRIED for kind in KINDS + ALONE * (world == "single")],
)
def test_every_kind_of_data_trains_as_one_process_does(world, kind, results):
    num_ranks, replicas = WORLDS[world]
    count = num_ranks * replicas if kind == "function" else 1
    plain = np.load(results("single") / f"plain-{SAME_BATCHES.get(kind, kind)}-{count}.npz")
    for rank in range(num_ranks):
        mine = np.load(results(world) / f"{kind}-{rank}.npz")
        assert np.abs(mine["weights"] - plain["weights"]).max() <= 1e-12
        assert set(plain.files) <= set(mine.files)
        for name in set(plain.files) - {"weights"}:
            np.testing.assert_allclose(mine[name], plain[name], atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("world", TRIED)
def test_items_are_read_once_in_each_epoch_and_told_of_its_end(world, results):
    num_steps = -(-NUM_SAMPLES // GLOBAL_BATCH_SIZE)
    for rank in range(WORLDS[world][0]):
        noted = np.load(results(world) / f"items-{rank}.npz")
        read = noted["read"].tolist()[2:]  # the first two are read once more, to know what items are like
        assert noted["ended"] == EPOCHS
        assert [sorted(read[:num_steps]), sorted(read[num_steps:])] == [list(range(num_steps))] * EPOCHS


@pytest.mark.parametrize("world", TRIED)
def test_metrics_with_sample_weights_are_those_of_one_process(world, results):
    plain = np.load(results("single") / "plain-evaluated.npz")
    for rank in range(WORLDS[world][0]):
        mine = np.load(results(world) / f"evaluated-{rank}.npz")
        assert len(mine["arrays"]) >= 7  # loss, accuracy, AUC, precision, recall, IoU, mean squared error
        np.testing.assert_allclose(mine["arrays"], plain["arrays"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("world", TRIED)
def test_predictions_are_those_of_one_process_in_the_order_of_the_data(world, results):
    plain = np.load(results("single") / "plain-evaluated.npz")["predicted"]
    mine = np.load(results(world) / "evaluated-0.npz")
    for name, factor in {"of-dataset": 1, "of-items": 1, "of-arrays": 1, "once": 1, "twice": 2}.items():
        assert mine[name].shape == plain.shape
        np.testing.assert_allclose(mine[name], factor * plain, atol=1e-12, rtol=0, err_msg=name)


@NEWEST_ONLY
def test_a_shuffle_without_a_seed_stops_the_run(tmp_path):
    done = run_program(tmp_path, "unseeded.py", np=2, status=2)
    said = [line for line in done.stderr.splitlines() if "the first batch of rank 1" in line]
    assert len(said) == 1
    assert "give each shuffle of the data a seed" in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@NEWEST_ONLY
def test_batches_that_differ_later_stop_the_run_at_the_end_of_the_epoch(tmp_path):
    done = run_program(tmp_path, "unseeded.py", "later", np=2, status=1)
    assert "those of epoch 1 are others on rank 1 than on rank 0" in done.stderr


@ONE_OF_KERAS_2
def test_batches_that_differ_later_stop_a_validation_an_evaluation_and_a_prediction(tmp_path):
    run_program(tmp_path, "unseeded.py", "tests", np=2)
    for rank in range(2):
        (log,) = tmp_path.glob(f"hpcdl-logs/*/rank-{rank:04}.log")
        lines = log.read_text().splitlines()
        for act, what in (("fit", "validation_data"), ("evaluate", "x"), ("predict", "x")):
            (said,) = (line for line in lines if f"{act} stopped: " in line)
            assert f"those of {what} are others on rank 1 than on rank 0" in said
        (said,) = (line for line in lines if "predict arrays stopped: " in line)
        assert "all ranks must start alike; rank 1 differs from rank 0 in data" in said
