"""Points take the batches that their kind of scaling says, or the study is refused."""

from __future__ import annotations

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.words import parse_train
from hpcdl.launch.bench.batches import check_batches
from hpcdl.launch.bench.planning import PlannedPoint
from hpcdl.launch.bench.study import read_study
from tests.launch.bench.studies import STEPS, write_measurement, write_study


def check(words, *counts, scaling="strong"):
    points = [PlannedPoint(f"{scaling}-{n}", scaling, n, 1, 1, scaling) for n in counts]
    return check_batches(parse_train(words.split()), points)


def test_a_fixed_global_batch_is_no_weak_scaling():
    words = "--global-batch-size 256 fashion_mnist/fc64"
    with pytest.raises(BadInput, match="--global-batch-size 256.*--scaling strong"):
        check(words, 1, 2, scaling="weak")
    assert check(words, 1, 2) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--per-replica-batch-size 32", "128 samples and 3 replicas.*--per-replica-batch-size 33"),
        (
            "",
            "512 samples and 3 replicas.*--per-replica-batch-size 129",
        ),  # of 128, as the workload recommends
        ("--global-batch-size 100", "100 samples and 3 replicas.*--global-batch-size 108"),
    ],
)
def test_strong_points_that_do_not_divide_the_global_batch_are_refused(words, says):
    with pytest.raises(BadInput, match=says):
        check(f"{words} fashion_mnist/fc64", 1, 3, 4)


def test_points_that_divide_it_are_taken_and_of_a_script_nobody_knows():
    assert check("--per-replica-batch-size 33 fashion_mnist/fc64", 1, 3, 4) == []
    assert check("my_script.py", 1, 2, 4) == []
    (warning,) = check("my_script.py", 1, 3, 4)
    assert warning.startswith("3 replicas take equal parts only if they divide 4 x the batch of a replica")


def test_a_study_whose_runs_took_other_batches_is_refused(tmp_path):
    folder = write_study(tmp_path / "study")
    for number in range(3):  # as of a script with a fixed global batch
        write_measurement(folder / f"round-{number:03d}" / "weak-2", STEPS["weak-2"], 1.0, batch=8)
    with pytest.raises(BadInput, match="same per_replica_batch_size.*8 at weak-1, 4 at weak-2.*strong"):
        read_study(folder)
