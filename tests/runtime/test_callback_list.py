"""The order in which callbacks are called, and the example of docs/training.md."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.runtime.checkpoints import Store
from hpcdl.runtime.following import Following
from hpcdl.runtime.processes import Alone
from tests.runtime.runs import Twins, make_run

keras = tf.keras
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def model(run):
    with run.scope():
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        made.compile("sgd", "mse", jit_compile=False)
    return made


def test_at_an_epochs_end_all_are_called_in_the_documented_order(run, model, monkeypatch, capsys):
    called = []

    def note(kind, method, name):
        plain = getattr(kind, method)

        def noted(self, *arguments, **more):
            called.append(name)
            return plain(self, *arguments, **more)

        monkeypatch.setattr(kind, method, noted)

    class Mine(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            called.append("mine")

    note(Following, "on_epoch_end", "hpcdl's own")
    note(keras.callbacks.History, "on_epoch_end", "History")
    note(keras.callbacks.ProgbarLogger, "on_epoch_end", "progress bar")
    note(Store, "save", "checkpoint")
    for _ in range(2):
        called.append("begin")
        mine = [Mine(), keras.callbacks.EarlyStopping("loss", min_delta=100, mode="min"), Mine()]
        run.fit(model, X, X[:, :1], global_batch_size=20, callbacks=mine, checkpoint_every="1epoch")
    assert called == 2 * ["begin", "hpcdl's own", "mine", "mine", "History", "progress bar", "checkpoint"]


@pytest.mark.parametrize("processes", [Alone(), Twins()])
@pytest.mark.parametrize("step", range(5))
def test_a_wish_to_stop_that_is_said_once_is_heard_in_any_step(step, processes, tmp_path):
    class StopOnce(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            if self.steps == step:
                self.model.stop_training = True
            self.steps += 1

    run = make_run(tmp_path / "run", processes)
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    stop = StopOnce()
    history = run.fit(model, X, X[:, :1], global_batch_size=8, epochs=3, callbacks=stop, verbose=0)
    assert history.epoch == [0]
    assert stop.steps == min(step + processes.size, 5)  # other ranks hear of it in the next step


def test_the_callback_of_the_page_runs(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page.partition("\n## Callbacks")[2], re.DOTALL)
    exec(block, {"tf": tf, "run": run, "model": model, "x": X, "y": X[:, :1]})
    assert (tmp_path / "notes.txt").read_text().startswith("1 ")
