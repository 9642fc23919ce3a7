"""The order in which callbacks are called, and the example of docs/training.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
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


class Logs(keras.callbacks.Callback):
    """Adds values to the logs."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: of_epochs[epoch] for name, of_epochs in self.values.items()})


def test_a_value_that_a_callback_logs_has_a_best_checkpoint(run, model, tmp_path):
    logs = Logs(val_dice=[0.25, np.float32(0.75), 0.5])
    arguments = {"best_by": "max:val_dice", "checkpoint_every": "1epoch", "keep_checkpoints": 1}
    run.fit(model, X, X[:, :1], global_batch_size=20, epochs=3, callbacks=[logs], verbose=0, **arguments)
    metas = [json.loads(p.read_text()) for p in (tmp_path / "run" / "checkpoints").glob("*/meta.json")]
    assert sorted((meta["epoch"], meta["score"]) for meta in metas) == [(2, -0.75), (3, -0.5)]


def test_a_model_that_a_callback_saves_has_the_regularizers_of_plain_keras(tmp_path):
    run = make_run(tmp_path / "run", Twins())
    shared = keras.regularizers.L2(
        0.1
    )  # of which that of the activity alone is a sum, in some versions of Keras 3
    with run.scope():
        layer = keras.layers.Dense(1, kernel_regularizer=shared, activity_regularizer=shared)
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile("sgd", "mse", jit_compile=False)
    path = tmp_path / "model.keras"
    saves = keras.callbacks.ModelCheckpoint(str(path))
    run.fit(model, X, X[:, :1], global_batch_size=20, callbacks=[saves], verbose=0)
    assert layer.activity_regularizer is shared
    loaded = keras.models.load_model(str(path)).layers[-1]
    for regularizer in (loaded.kernel_regularizer, loaded.activity_regularizer):
        assert type(regularizer) is keras.regularizers.L2


class Logging(keras.callbacks.Callback):
    """Adds a value to the logs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_dice"] = 1.0


@pytest.mark.parametrize(
    ("others", "watched", "is_refused"),
    [
        ([], "val_loss", False),
        ([], "val_mae", False),
        ([], "val_dice", True),
        ([keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)], "val_dice", True),
        ([Logging()], "val_dice", False),
        (
            [keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: logs.update(val_dice=1.0))],
            "val_dice",
            False,
        ),
    ],
)
def test_what_a_callback_watches_is_in_the_logs_unless_a_user_may_add_it(
    others, watched, is_refused, tmp_path
):
    run = make_run(tmp_path / "run")
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=["mae"], jit_compile=False)
    callbacks = [*others, keras.callbacks.EarlyStopping(watched, mode="min")]
    arguments = {"global_batch_size": 20, "validation_data": (X, X[:, :1]), "verbose": 0}
    if is_refused:
        with pytest.raises(
            BadInput, match=f"monitor='{watched}' of EarlyStopping; .*will have loss, mae, val_l"
        ):
            run.fit(model, X, X[:, :1], callbacks=callbacks, **arguments)
        assert not (tmp_path / "run").exists()
    else:
        run.fit(model, X, X[:, :1], callbacks=callbacks, **arguments)


class OnRank0(keras.callbacks.Callback):
    """Does something at the end of the first epoch."""

    rank_0_only = True

    def __init__(self, does):
        super().__init__()
        self.does = does

    def on_epoch_end(self, epoch, logs=None):
        self.does()


def of_lambda(does):
    made = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: does())
    made.rank_0_only = True
    return made


@pytest.mark.parametrize("make", [OnRank0, of_lambda])
@pytest.mark.parametrize("what", ["evaluate", "predict", "barrier", "average_gradients", "broadcast", "save"])
def test_what_all_ranks_do_together_is_refused_in_a_callback_of_rank_0(what, make, tmp_path):
    run = make_run(tmp_path / "run", Twins())
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    arguments = {
        "evaluate": (model, X, X[:, :1]),
        "predict": (model, X),
        "barrier": (),
        "average_gradients": ([tf.ones(3)],),
        "broadcast": (model.variables,),
        "save": (model, tmp_path / "model.keras"),
    }
    callback = make(lambda: getattr(run, what)(*arguments[what]))
    with pytest.raises(
        BadInput, match=f"received a call from the callback {type(callback).__name__}, which runs on"
    ):
        run.fit(model, X, X[:, :1], global_batch_size=20, callbacks=[callback], verbose=0)
    assert not (tmp_path / "model.keras").exists()
    run.barrier()
    callback = make(lambda: model.evaluate(X, X[:, :1], verbose=0))
    run.fit(model, X, X[:, :1], global_batch_size=20, callbacks=[callback], verbose=0)


def test_what_all_ranks_do_together_is_refused_in_a_callback_of_an_evaluation(tmp_path):
    class Waits(keras.callbacks.Callback):
        rank_0_only = True

        def on_test_end(self, logs=None):
            run.barrier()

    run = make_run(tmp_path / "run", Twins())
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(BadInput, match="received a call from the callback Waits"):
        run.evaluate(model, X, X[:, :1], callbacks=[Waits()], verbose=0)


def test_alone_a_callback_of_rank_0_may_call_everything(run, model):
    callback = OnRank0(lambda: (run.barrier(), run.evaluate(model, X, X[:, :1], verbose=0)))
    run.fit(model, X, X[:, :1], global_batch_size=20, callbacks=[callback], verbose=0)


class Second(Twins):
    """Rank 1 of two, whose rank 0 holds numbers that are greater by 1."""

    rank = 1

    def broadcast(self, tensor):
        return tensor + tf.ones_like(tensor)


class Counts(keras.layers.Layer):
    """Counts its calls, in an evaluation too."""

    def build(self, shape):
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_what_a_replica_holds_for_itself_is_its_own_again_after_an_evaluation(what, tmp_path):
    run = make_run(tmp_path / "run", Second())
    with run.scope():
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.BatchNormalization(), Counts(), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse", jit_compile=False)
    normalized, counted, dense = model.layers
    calls = float(counted.calls.numpy())
    data = (X, X[:, :1]) if what == "evaluate" else (X,)
    getattr(run, what)(model, *data, global_batch_size=20, verbose=0)
    np.testing.assert_array_equal(normalized.moving_mean.numpy(), np.zeros(4))
    np.testing.assert_array_equal(normalized.moving_variance.numpy(), np.ones(4))
    np.testing.assert_array_equal(dense.bias.numpy(), [1])  # trained weights are those of rank 0
    assert counted.calls.numpy() > calls + 1  # as plain Keras has it, from what rank 0 holds
