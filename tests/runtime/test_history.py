"""A run keeps each value at its epoch, whichever epochs have one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.records import read_history
from hpcdl.runtime.history import History
from hpcdl.runtime.run_folder import columns
from tests.runtime.runs import make_run

keras = tf.keras
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :1]


class Logs(keras.callbacks.Callback):
    """Adds values, by epochs counted from 0, to the logs."""

    def __init__(self, name, values, fails_at=None):
        super().__init__()
        self.name, self.values, self.fails_at = name, values, fails_at

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.fails_at:
            raise InterruptedError
        values = self.values if isinstance(self.values, dict) else dict(enumerate(self.values))
        if epoch in values:
            logs[self.name] = values[epoch]


def train(run_dir, **arguments):
    run = make_run(run_dir)
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    return run.fit(model, X, Y, global_batch_size=8, verbose=0, **{"checkpoint_every": "1epoch", **arguments})


def final_metrics(run_dir):
    return json.loads((run_dir / "run.json").read_text())["final_metrics"]


@pytest.mark.parametrize(("first", "second"), [(None, (X, Y)), ((X, Y), None)])
def test_validation_that_begins_or_ends_later_has_its_values_at_its_epochs(first, second, tmp_path):
    train(tmp_path / "run", epochs=2, validation_data=first)
    done = train(tmp_path / "run", epochs=4, validation_data=second)
    of_keras = {"loss": 4, "val_loss": 2}
    again = train(tmp_path / "run", epochs=4, validation_data=second)
    for history in (done, again):
        assert history.epoch == [0, 1, 2, 3]
        assert {name: len(values) for name, values in history.history.items()} == of_keras
    assert again.history == done.history
    values, gap = done.history["val_loss"], [None, None]
    assert read_history(tmp_path / "run" / "history.csv") == {
        "loss": done.history["loss"],
        "val_loss": [*gap, *values] if second else [*values, *gap],
    }
    last = {"loss": done.history["loss"][-1], **({"val_loss": values[-1]} if second else {})}
    assert final_metrics(tmp_path / "run") == last


def test_a_value_of_some_epochs_stands_at_these_after_a_resume_too(tmp_path):
    values = {1: 0.25, 3: 0.5}
    with pytest.raises(InterruptedError):
        train(tmp_path / "run", epochs=5, callbacks=[Logs("test_dice", values, fails_at=2)])
    history = train(tmp_path / "run", epochs=5, callbacks=[Logs("test_dice", values)])
    assert history.history["test_dice"] == [0.25, 0.5]  # as Keras gives it
    assert read_history(tmp_path / "run" / "history.csv")["test_dice"] == [None, 0.25, None, 0.5, None]
    assert list(final_metrics(tmp_path / "run")) == ["loss"]


def test_what_is_no_number_is_left_out_and_said_once(tmp_path, capfd):
    callbacks = [
        Logs("when", ["12:00", "12:01", 12.5]),
        Logs("uneven", [[0.5, [0.25]]] * 3),
        Logs("seldom", [None, 0.5, None]),
    ]
    history = train(tmp_path / "run", epochs=3, callbacks=callbacks)
    assert history.history["when"] == ["12:00", "12:01", 12.5]  # as Keras gives it
    written = read_history(tmp_path / "run" / "history.csv")
    assert (written["when"], written["seldom"]) == ([None, None, 12.5], [None, 0.5, None])
    assert "uneven" not in written
    assert set(final_metrics(tmp_path / "run")) == {"loss", "when"}
    (said,) = (line for line in capfd.readouterr().err.splitlines() if "keeps numbers" in line)
    assert "received when='12:00', uneven=[0.5, [0.25]] in the logs of an epoch" in said


def test_a_run_that_a_callback_has_ended_gives_the_epochs_that_it_has_trained(tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100, mode="min")
    first, again = (train(tmp_path / "run", epochs=5, callbacks=[stop]) for _ in range(2))
    assert first.epoch == again.epoch == [0, 1]
    assert first.history == again.history


def test_lists_of_an_earlier_hpcdl_may_end_early():
    history = History({"loss": [0.5, 0.25], "f1": [[0.5, 0.75]]}, is_rank_0=True)
    history.set_model(SimpleNamespace())
    history.on_train_begin()
    assert history.rows == [{"loss": 0.5, "f1": [0.5, 0.75]}, {"loss": 0.25}]
    assert history.by_name() == {"loss": [0.5, 0.25], "f1": [[0.5, 0.75], None]}
    assert history.history["loss"] == [0.5, 0.25]
    assert [(type(value), value.shape) for value in history.history["f1"]] == [(np.ndarray, (2,))]


def test_each_value_of_an_array_has_a_column_and_an_epoch_without_one_empty_cells():
    history = {"loss": [0.5, 0.25], "one": [[1.0], None], "f1": [None, [0.5, 0.75]]}
    assert columns(history) == {
        "loss": [0.5, 0.25],
        "one": [1.0, None],
        "f1[0]": [None, 0.5],
        "f1[1]": [None, 0.75],
    }
