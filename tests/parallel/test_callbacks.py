"""Callbacks that write run on rank 0, callbacks that decide run everywhere and agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.users_callbacks import _WRITERS, as_list, of_this_rank
from tests.parallel.launching import run_program
from tests.parallel.programs.callbacks import PULLED, fit_weight
from tests.parallel.programs.cases import IS_KERAS_3

keras = tf.keras


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("callbacks")
    run_program(made, "callbacks.py", made, np=2)
    return made


@pytest.fixture
def ranks(folder):
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_those_that_write_do_so_on_rank_0_only(folder):
    written = {p.name for p in folder.glob("rank-*")}
    assert written == {"rank-0.json", "rank-1.json", "rank-0-best.keras", "rank-0.csv", "rank-0-board"}
    assert list((folder / "rank-0-board").rglob("events.*"))


def test_all_see_values_of_the_whole_world_in_the_documented_order(ranks):
    names = [name for name, epoch, _ in ranks[0]["calls"] if epoch == 0]
    assert names == ["first", "writer", "last"]
    assert [name for name, epoch, _ in ranks[1]["calls"] if epoch == 0] == ["first", "last"]
    of_first = [[call for call in rank["calls"] if call[0] == "first"] for rank in ranks]
    assert of_first[0] == of_first[1]
    for _, epoch, logs in of_first[0]:
        for name, value in logs.items():
            assert value == pytest.approx(ranks[0]["history"][name][epoch])


def test_those_that_decide_agree(ranks):
    assert 1 < len(ranks[0]["history"]["loss"]) < 6  # EarlyStopping ended it
    assert ranks[0]["history"] == ranks[1]["history"]
    assert ranks[0]["rate"] == ranks[1]["rate"]


def test_those_that_decide_decide_by_the_whole_world_where_ranks_alone_would_decide_otherwise(ranks):
    first, second = (rank["pulled"] for rank in ranks)
    # By its own loss rank 0 would reduce the rate and stop at once, and rank 1 later than all.
    assert first["of_rank"][:5] == sorted(first["of_rank"][:5])
    assert second["of_rank"][:5] == sorted(second["of_rank"][:5], reverse=True)
    plain = fit_weight(keras.Model.fit, PULLED, batch_size=20, verbose=0)
    num_reductions = sum(rate < before for before, rate in zip(plain["rates"], plain["rates"][1:]))
    assert num_reductions >= 2
    assert 5 < len(plain["loss"]) < 20
    for rank in (first, second):
        assert rank["loss"] == pytest.approx(plain["loss"])
        assert rank["rates"] == pytest.approx(plain["rates"])


def test_a_nan_that_one_rank_meets_ends_all_in_the_same_step_and_the_run_is_done(folder, ranks):
    first, second = (rank["ended"]["of_rank"] for rank in ranks)
    assert np.isnan(first).tolist() == [False, False, False, True]
    assert np.isnan(second).tolist() == [False, False, True, True]
    assert [len(rank["ended"]["loss"]) for rank in ranks] == [1, 1]
    (record,) = folder.glob("runs/callbacks-*/fit-3/run.json")
    assert json.loads(record.read_text())["status"] == "done"


def test_progress_is_shown_on_rank_0_only(folder):
    first, second = (next(folder.glob(f"hpcdl-logs/*/rank-000{rank}.log")).read_text() for rank in range(2))
    assert first.count("Epoch 1/20") == 2
    assert "Epoch" not in second


def test_weights_that_rank_0_loaded_reach_all_and_random_streams_stay_apart(ranks):
    first, second = (rank["begun"] for rank in ranks)
    assert first["loaded"] == first["weights"] == second["weights"]
    assert len(first["seeds"]) == (2 if IS_KERAS_3 else 1)  # of dropout, and of keras.random without a seed
    assert all(one != other for one, other in zip(first["seeds"], second["seeds"]))


def test_one_that_evaluates_gets_what_the_validation_gave(ranks):
    for rank in ranks:
        assert len(rank["seen"]) == len(ranks[0]["history"]["loss"])
        for alone, together, validated in rank["seen"]:
            assert alone == pytest.approx(validated, rel=1e-5)
            assert together == pytest.approx(validated, rel=1e-5)


def test_what_was_logged_to_a_file_is_what_fit_returned(folder, ranks):
    head, *rows = (folder / "rank-0.csv").read_text().split()
    at = head.split(",").index("val_loss")
    assert [float(row.split(",")[at]) for row in rows] == pytest.approx(ranks[0]["history"]["val_loss"])


def test_the_record_names_the_folder_of_the_ranks_logs(folder):
    (record,) = folder.glob("runs/callbacks-*/run.json")
    logs = Path(json.loads(record.read_text())["log_dir"])
    assert logs.parent == folder / "hpcdl-logs"
    assert {"rank-0000.log", "rank-0001.log"} <= {path.name for path in logs.iterdir()}


@pytest.mark.parametrize("name", [*_WRITERS, "EarlyStopping", "TerminateOnNaN"])
def test_which_of_keras_run_where(name):
    kind = getattr(keras.callbacks, name, None)
    if kind is None:
        pytest.skip("this Keras has none")
    callback = kind.__new__(kind)  # some cannot be made without a package of their own
    assert of_this_rank([callback], True) == [callback]
    assert of_this_rank([callback], False) == ([] if name in _WRITERS else [callback])


def test_a_writer_that_says_so_runs_everywhere():
    class Evaluates(keras.callbacks.ModelCheckpoint):
        rank_0_only = False

    by_class, by_object = Evaluates("a.keras"), keras.callbacks.CSVLogger("a.csv")
    by_object.rank_0_only = False
    assert of_this_rank([by_class, by_object], False) == [by_class, by_object]


def test_a_second_resume_is_refused(tmp_path):
    with pytest.raises(BadInput, match="see checkpoint_every"):
        as_list([keras.callbacks.BackupAndRestore(str(tmp_path))])


@pytest.mark.parametrize("thing", [keras.callbacks.TerminateOnNaN, print, None])
def test_what_is_no_callback_is_refused(thing):
    with pytest.raises(BadInput, match="must be objects of classes derived from"):
        as_list([thing])
