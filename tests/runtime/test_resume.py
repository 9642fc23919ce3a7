"""A run that was stopped ends as one that was not; a run folder belongs to one run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import EXIT_REQUEUE, BadInput, HpcdlError
from hpcdl.common.records import read_history
from hpcdl.runtime import checkpoints, run_folder
from hpcdl.runtime.monitoring import WatchedNames
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.state import capture, restore
from tests.runtime.runs import Twins, make_run

keras = tf.keras
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


class Fails(Exception):
    pass


class FailAt(keras.callbacks.Callback):
    """Fails at the end of a step, as a process does that runs out of memory."""

    def __init__(self, epoch, step):
        super().__init__()
        self.where, self.epoch = (epoch, step), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.where:
            raise Fails


class SignalAt(FailAt):
    """Is told at the end of a step that the job ends soon."""

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.where:
            os.kill(os.getpid(), signal.SIGUSR1)


class Seen(keras.callbacks.Callback):
    """Notes the steps that it sees."""

    def __init__(self):
        super().__init__()
        self.steps, self.epoch = [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((self.epoch, batch))


def build(
    units=5,
    rate=0.05,
    steps_per_execution=1,
    activation="relu",
    optimizer=keras.optimizers.Adam,
    loss_weights=None,
):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, activation=activation),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer(rate),
        loss=loss,
        loss_weights=loss_weights,
        metrics=["accuracy"],
        jit_compile=False,
        steps_per_execution=steps_per_execution,
    )
    return model


def train(run_dir, build=build, callbacks=(), epochs=3, **arguments):
    run = hpcdl.init(run_dir=str(run_dir))
    with run.scope():
        model = build()
    said = {"y": Y, "validation_data": (X, Y), "global_batch_size": 8, "checkpoint_every": "2steps,1epoch"}
    said.update(arguments)
    history = run.fit(model, X, epochs=epochs, callbacks=list(callbacks), verbose=0, **said)
    return model, history.history


def record(run_dir):
    return json.loads((run_dir / "run.json").read_text())


def assert_same(first, second):
    for a, b in zip(first[0].get_weights(), second[0].get_weights()):
        np.testing.assert_array_equal(a, b)
    assert first[1] == second[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that never stopped."""
    return train(tmp_path_factory.mktemp("unbroken") / "run")


@pytest.mark.parametrize("where", [(0, 3), (1, 0), (1, 5), (2, 6)])
def test_a_run_that_failed_goes_on_to_the_same_bits(where, unbroken, tmp_path):
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(*where)])
    assert record(tmp_path / "run")["status"] == "failed"
    assert "Fails" in record(tmp_path / "run")["error"]
    seen = Seen()
    assert_same(train(tmp_path / "run", callbacks=[seen]), unbroken)
    assert record(tmp_path / "run")["status"] == "done"
    assert len(record(tmp_path / "run")["resumed"]) == 1
    resumed = record(tmp_path / "run")["resumed"][0]
    first = (resumed["epoch"], resumed["step"])
    assert seen.steps == [(e, s) for e in range(3) for s in range(7) if (e, s) >= first]


def test_an_optimizer_goes_on_with_what_keras_does_not_list_of_it(tmp_path):
    def build_with_nadam():
        return build(optimizer=keras.optimizers.Nadam)  # Keras 2: a product of all its momenta

    whole = train(tmp_path / "whole", build=build_with_nadam)
    with pytest.raises(Fails):
        train(tmp_path / "run", build=build_with_nadam, callbacks=[FailAt(1, 3)])
    assert_same(train(tmp_path / "run", build=build_with_nadam), whole)


@pytest.mark.parametrize("where", [(0, 3), (2, 6)])
def test_a_run_goes_on_with_several_steps_in_one_execution(where, unbroken, tmp_path):
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(*where)])
    went_on = train(tmp_path / "run", build=lambda: build(steps_per_execution=4))
    for a, b in zip(went_on[0].get_weights(), unbroken[0].get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    resumed = record(tmp_path / "run")["resumed"][0]
    assert resumed["step"] % 4, "the step must lie within an execution"


def test_a_finished_run_says_so_and_gives_what_it_gave(unbroken, tmp_path, capfd):
    train(tmp_path / "run")
    seen = Seen()
    assert_same(train(tmp_path / "run", callbacks=[seen]), unbroken)
    assert seen.steps == []
    assert "is finished: 3 epochs were trained" in capfd.readouterr().err


def test_a_finished_run_that_is_started_again_keeps_its_record(tmp_path):
    train(tmp_path / "run", epochs=1)
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    before = {p: p.read_bytes() for p in files}
    train(tmp_path / "run", epochs=1)
    assert {p: p.read_bytes() for p in files} == before


def test_a_disk_that_is_full_at_the_end_is_one_line_and_the_run_ends_when_there_is_room(
    unbroken, tmp_path, monkeypatch
):
    def full(path, history):
        if len(history.get("loss", ())) == 3:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_history", full)
        with pytest.raises(HpcdlError, match="does not take the results: No space left on device; make room"):
            train(tmp_path / "run")
    assert record(tmp_path / "run")["status"] == "running"
    assert_same(train(tmp_path / "run"), unbroken)
    assert record(tmp_path / "run")["status"] == "done"


def logger(path, **arguments):
    return keras.callbacks.CSVLogger(str(path), **arguments)


def fail_at(where, csv_logger, run_dir, **arguments):
    with pytest.raises(Fails):
        train(run_dir, callbacks=[csv_logger, FailAt(*where)], **arguments)
    csv_logger.csv_file.close()


@pytest.mark.parametrize(("every", "separator"), [("2steps,1epoch", ","), ("2epochs", ";")])
def test_the_file_of_a_csv_logger_is_that_of_a_run_that_never_stopped(every, separator, tmp_path):
    whole, file = tmp_path / "whole.csv", tmp_path / "file.csv"
    arguments = {"epochs": 4, "checkpoint_every": every}
    train(tmp_path / "whole", callbacks=[logger(whole, separator=separator)], **arguments)
    fail_at((3, 0), logger(file, separator=separator), tmp_path / "run", **arguments)
    again = logger(file, separator=separator)
    train(tmp_path / "run", callbacks=[again], **arguments)
    assert file.read_bytes() == whole.read_bytes()
    assert not again.append
    train(tmp_path / "run", callbacks=[logger(file, separator=separator)], **arguments)  # which is finished
    assert file.read_bytes() == whole.read_bytes()


def test_rows_that_a_csv_logger_was_told_to_append_to_are_left_alone(tmp_path):
    file = tmp_path / "file.csv"
    file.write_text("epoch,loss\n5,0.5\n")
    fail_at((1, 0), logger(file, append=True), tmp_path / "run")
    train(tmp_path / "run", callbacks=[logger(file, append=True)])
    assert [row.split(",")[0] for row in file.read_text().split()] == ["epoch", "5", "0", "1", "2"]


def test_a_csv_logger_whose_file_is_gone_begins_a_new_one(tmp_path):
    fail_at((1, 0), logger(tmp_path / "a.csv"), tmp_path / "run")
    train(tmp_path / "run", callbacks=[logger(tmp_path / "b.csv")])
    assert [row.split(",")[0] for row in (tmp_path / "b.csv").read_text().split()] == ["epoch", "1", "2"]


def test_a_finished_run_calls_no_callback_that_writes_and_gives_each_its_memory(tmp_path):
    class Writes(keras.callbacks.Callback):
        begun = 0
        last = None

        def on_train_begin(self, logs=None):
            self.begun += 1

        def on_epoch_end(self, epoch, logs=None):
            self.last = epoch

    class OnRank0(Writes):
        rank_0_only = True

    train(tmp_path / "run", callbacks=[OnRank0(), Writes()])
    again = [OnRank0(), Writes()]
    train(tmp_path / "run", callbacks=again)
    assert [(one.begun, one.last) for one in again] == [(0, 2), (1, 2)]


def test_other_initial_weights_are_not_taken_and_that_is_said(unbroken, tmp_path, capfd):
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(1, 0)])

    def build_others():
        model = build()
        model.set_weights([w + 1 for w in model.get_weights()])
        return model

    assert_same(train(tmp_path / "run", build=build_others), unbroken)
    assert "are not those that" in capfd.readouterr().err
    assert_same(train(tmp_path / "run"), unbroken)
    assert "are not those that" not in capfd.readouterr().err


def test_more_epochs_go_on_with_a_finished_run(unbroken, tmp_path):
    train(tmp_path / "run", epochs=2)
    assert_same(train(tmp_path / "run", epochs=3), unbroken)


def test_of_a_damaged_checkpoint_the_one_before_it_is_used_and_said(unbroken, tmp_path, capfd):
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(1, 4)])
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    (newest / "arrays.npz").write_bytes((newest / "arrays.npz").read_bytes()[:-20])
    assert_same(train(tmp_path / "run"), unbroken)
    said = capfd.readouterr().err
    assert f"{newest} is not used: arrays.npz changed" in said
    assert "going on with" in said


def test_checkpoints_none_of_which_can_be_used_are_not_trained_over(tmp_path):
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(1, 4)])
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        (checkpoint / "arrays.npz").write_bytes(b"")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(BadInput, match="none of which can be used .* pass --fresh"):
        train(tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"global_batch_size": 10}, "global_batch_size 8, now 10"),
        ({"build": lambda: build(units=6)}, "num_parameters"),
        ({"build": lambda: build(activation="tanh")}, 'activation "relu", now "tanh"'),
        ({"build": lambda: build(rate=0.1)}, "optimizer learning_rate 0.05"),
        ({"build": lambda: build(loss_weights=[2.0])}, "loss_weights null, now [2.0]"),
        ({"shuffle": False}, "shuffle true, now false"),
        ({"sample_weight": np.ones(50, "float32")}, "data"),
        ({"y": np.where(np.arange(50) == 7, 1 - Y, Y)}, "data"),  # a label that was corrected
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_as_it_was(change, words, tmp_path):
    train(tmp_path / "run", epochs=1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    with pytest.raises(BadInput, match="a run folder goes on with the run that it holds") as refused:
        train(tmp_path / "run", epochs=1, **change)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_fresh_moves_the_old_folder_aside(tmp_path, monkeypatch):
    train(tmp_path / "run", epochs=1)
    monkeypatch.setenv("HPCDL_FRESH", "1")
    train(tmp_path / "run", epochs=1, global_batch_size=10)
    (aside,) = tmp_path.glob("run.before-*")
    assert record(aside)["config"]["global_batch_size"] == 8
    assert record(tmp_path / "run")["config"]["global_batch_size"] == 10
    assert "resumed" not in record(tmp_path / "run")


@pytest.mark.parametrize("fresh", ["", "1"])
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_was(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("HPCDL_FRESH", fresh)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match=r"has no run\.json but thesis\.tex"):
        train(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_record_that_cannot_be_read_is_refused(tmp_path):
    train(tmp_path / "run", epochs=1)
    (tmp_path / "run" / "run.json").write_text('{"schema_ver')
    with pytest.raises(BadInput, match="must be the record of a run"):
        train(tmp_path / "run", epochs=1)


def test_a_lost_record_does_not_lose_the_run(unbroken, tmp_path):
    train(tmp_path / "run", epochs=2)
    (tmp_path / "run" / "run.json").unlink()
    assert_same(train(tmp_path / "run"), unbroken)


def test_a_folder_is_used_by_one_run_at_a_time(tmp_path):
    train(tmp_path / "run", epochs=1)
    with open(str(tmp_path / "run" / ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="in which another process is training"):
            train(tmp_path / "run", epochs=1)
    train(tmp_path / "run", epochs=1)


def test_what_callbacks_remember_survives(tmp_path):
    def watchful():
        return [
            keras.callbacks.EarlyStopping(
                "loss", patience=2, min_delta=0.5, mode="min", restore_best_weights=True
            ),
            keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5, mode="min", factor=0.5),
        ]

    whole = train(tmp_path / "whole", callbacks=watchful(), epochs=9)
    assert len(whole[1]["loss"]) < 9
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[*watchful(), FailAt(1, 4)], epochs=9)
    assert_same(train(tmp_path / "run", callbacks=watchful(), epochs=9), whole)
    # What ended early is finished.
    seen = Seen()
    assert_same(train(tmp_path / "run", callbacks=[*watchful(), seen], epochs=9), whole)
    assert seen.steps == []


class BeginsOnce(keras.callbacks.Callback):
    """Halves the rate and counts where an epoch begins, and notes what it then sees in each step."""

    def __init__(self):
        super().__init__()
        self.begun, self.is_at_begin, self.seen = 0, False, []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun, self.is_at_begin = self.begun + 1, True
        self.model.layers[1].moving_mean.assign_add(tf.ones(5))

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([self.begun, self.is_at_begin, batch])
        self.is_at_begin = False


def test_what_callbacks_do_where_an_epoch_begins_is_done_once(tmp_path):
    def halving():
        return [BeginsOnce(), keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]

    callbacks = halving()
    whole = train(tmp_path / "whole", callbacks=callbacks)
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[*halving(), FailAt(1, 4)])
    again = halving()
    assert_same(train(tmp_path / "run", callbacks=again), whole)
    assert record(tmp_path / "run")["resumed"][0]["step"] > 0
    assert again[0].seen == callbacks[0].seen


def test_the_final_model_is_one_that_plain_keras_loads(tmp_path):
    model, _ = train(tmp_path / "run", lr_scaling="linear", reference_batch_size=4, warmup_epochs=1)
    loaded = keras.models.load_model(str(tmp_path / "run" / "model.keras"))
    assert type(loaded.optimizer) is keras.optimizers.Adam
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.05)
    for mine, theirs in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    loaded.fit(X, Y, verbose=0)


def test_a_model_that_keras_cannot_save_is_said(tmp_path, capfd):
    class Own(keras.Model):
        def __init__(self, function):
            super().__init__()
            self.function, self.dense = function, keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(self.function(inputs))

        def get_config(self):
            raise NotImplementedError("no configuration")

    def build_own():
        model = Own(lambda inputs: inputs * 2)
        model(X[:1])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss=loss, jit_compile=False)
        return model

    train(tmp_path / "run", build=build_own, epochs=1)
    assert "could not save this model" in capfd.readouterr().err
    assert record(tmp_path / "run")["status"] == "done"


def test_each_fit_of_a_script_has_a_folder_of_its_own(tmp_path):
    def script():
        run = hpcdl.init(run_dir=str(tmp_path / "run"))
        with run.scope():
            model = build()
        histories = [
            run.fit(model, X, Y, global_batch_size=8, epochs=epochs, verbose=0).history for epochs in (1, 2)
        ]
        return model, histories

    first = script()
    assert record(tmp_path / "run")["config"]["epochs"] == 1
    assert record(tmp_path / "run" / "fit-2")["config"]["epochs"] == 2
    assert_same(script(), first)


class FailAtEnd(keras.callbacks.Callback):
    """Fails when the first epoch is over, its validation included."""

    def on_epoch_end(self, epoch, logs=None):
        raise Fails


@pytest.mark.parametrize("shape", ["arrays", "data set"])
def test_a_fit_after_one_that_failed_validates_on_data_of_its_own(shape, tmp_path):
    def validation(x, y):
        return (x, y) if shape == "arrays" else tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    run = hpcdl.init(run_dir=str(tmp_path / "run"))
    with run.scope():
        model = build()
    arguments = {"global_batch_size": 8, "verbose": 0}
    with pytest.raises(Fails):
        run.fit(model, X, Y, validation_data=validation(X, Y), callbacks=[FailAtEnd()], **arguments)
    history = run.fit(model, X, Y, validation_data=validation(X[:9] + 1, Y[:9]), **arguments).history
    expected = run.evaluate(model, X[:9] + 1, Y[:9], **arguments)[0]
    assert history["val_loss"] == [pytest.approx(expected, abs=1e-6)]


class Parting(Twins):
    """Rank 0 of two, which notes what the ranks do before they leave."""

    def __init__(self):
        self.did = []

    def barrier(self):
        self.did.append("barrier")

    def shutdown(self):
        self.did.append("shutdown")


class StopAt(FailAt):
    """Ends the training at a step."""

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.where:
            self.model.stop_training = True


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_training_that_a_callback_ends_ends_in_the_same_step_where_all_ranks_leave(step, tmp_path):
    def script(folder, *callbacks):
        keras.utils.set_random_seed(0)
        run = make_run(tmp_path / folder, Parting())
        with run.scope():
            model = build()
        history = run.fit(model, X, Y, global_batch_size=8, epochs=3, verbose=0, callbacks=list(callbacks))
        return model, history.history

    unbroken = script("unbroken", StopAt(0, step))  # all ranks have heard of it after the next step
    assert len(unbroken[1]["loss"]) == 1
    seen = Seen()
    if step == 2:  # they hear of both in the same step, and there is nothing left to leave for
        mine = script("run", SignalAt(0, 2), StopAt(0, step), seen)
        assert seen.steps[-1] == (0, 3)
    else:
        with pytest.raises(SystemExit):
            script("run", SignalAt(0, 2), StopAt(0, step))
        assert record(tmp_path / "run")["status"] == "stopped"
        mine = script("run", StopAt(0, step), seen)
        assert seen.steps == [(0, 4), (0, 5)][: step - 2]
    assert record(tmp_path / "run")["status"] == "done"
    assert_same(mine, unbroken)


@pytest.mark.parametrize(("why", "processes"), [("time", Parting()), ("signal", Alone())])
def test_a_fit_that_would_begin_when_it_is_time_to_stop_is_left_to_the_next_start(
    why, processes, tmp_path, monkeypatch, capfd
):
    class Late(keras.callbacks.Callback):
        """Lets the time to stop come when the fit is at its end anyway."""

        def on_epoch_end(self, epoch, logs=None):
            if why == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
            else:
                monkeypatch.setenv("HPCDL_END_TIME", str(time.time() + 5))

    def script(*callbacks):
        run = make_run(tmp_path / "run", processes)
        with run.scope():
            model = build()
        for _ in range(2):
            run.fit(model, X, Y, global_batch_size=8, epochs=1, verbose=0, callbacks=list(callbacks))

    with pytest.raises(SystemExit) as end:
        script(Late())
    assert end.value.code == EXIT_REQUEUE
    if processes.size > 1:
        assert processes.did == ["barrier", "shutdown"]
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hpcdl: ")]
    assert said == [f"hpcdl: stopped before {tmp_path / 'run' / 'fit-2'} begins, to be started again"]
    assert record(tmp_path / "run")["status"] == "done"
    assert not (tmp_path / "run" / "fit-2").exists()
    monkeypatch.delenv("HPCDL_END_TIME", raising=False)
    script()
    assert record(tmp_path / "run" / "fit-2")["status"] == "done"


def test_the_first_fit_of_a_start_is_refused_where_no_time_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCDL_END_TIME", str(time.time() + 5))
    with pytest.raises(BadInput, match="end time must be in the future"):
        train(tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path):
    train(tmp_path / "run", epochs=4, keep_checkpoints=1, best_by="accuracy", checkpoint_every="1epoch")
    _, *rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    metas = [json.loads(p.read_text()) for p in (tmp_path / "run" / "checkpoints").glob("*/meta.json")]
    accuracies = (
        metas[0]["history"]["accuracy"] if metas[0]["epoch"] == 4 else metas[-1]["history"]["accuracy"]
    )
    best = 1 + int(np.argmax(accuracies))
    assert len(rows) == 4
    assert sorted(m["epoch"] for m in metas) == sorted({best, 4})


def test_a_value_that_the_logs_lack_is_said_once_with_the_nearest(tmp_path, capfd):
    train(tmp_path / "run", epochs=2, best_by="val_acuracy", checkpoint_every="never")
    said = capfd.readouterr().err
    assert said.count("no checkpoint is the best by val_acuracy") == 1
    assert "did you mean val_accuracy? they have" in said


def test_callbacks_that_watch_what_the_logs_lack_are_said_after_the_first_epoch(capfd):
    callbacks = [
        keras.callbacks.EarlyStopping("val_los", mode="min"),
        keras.callbacks.ModelCheckpoint("a.keras", monitor="val_acc", save_best_only=True, mode="max"),
        keras.callbacks.ModelCheckpoint("b.keras", monitor="of no use"),
        keras.callbacks.ReduceLROnPlateau("val_loss"),
    ]
    names = WatchedNames("loss", callbacks)
    names.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5})
    first, second = capfd.readouterr().err.splitlines()
    assert (
        "EarlyStopping never acts: it watches val_los, which the logs lack; did you mean val_loss? they"
        in first
    )
    assert (
        "ModelCheckpoint never acts: it watches val_acc, which the logs lack; did you mean val_acc" in second
    )
    names.on_epoch_end(1, {"loss": 1.0})
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "callback", "error", "words"),
    [
        ("running", None, HpcdlError, "a run begins with its record"),
        ("stopped", SignalAt(0, 3), SystemExit, "85"),
        ("failed", FailAt(0, 3), Fails, "^$"),
    ],
)
def test_a_disk_that_is_full_does_not_hide_why_a_run_ends(
    status, callback, error, words, tmp_path, monkeypatch, capfd
):
    plain = run_folder.RunFolder.write

    def write(self, record):
        if record["status"] == status:
            raise OSError(28, "No space left on device")
        plain(self, record)

    monkeypatch.setattr(run_folder.RunFolder, "write", write)
    with pytest.raises(error, match=words):
        train(tmp_path / "run", callbacks=[callback] if callback else [])
    said = capfd.readouterr().err
    assert (f"that the run {status}: No space left on device" in said) == (status != "running")


def build_of_two_thresholds():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    precision = keras.metrics.Precision(thresholds=[0.25, 0.75], name="precision")
    model.compile("sgd", loss="binary_crossentropy", metrics=[precision], jit_compile=False)
    return model


def test_a_metric_of_several_values_is_kept_as_keras_gives_it_and_written_in_columns(tmp_path):
    arguments = {"build": build_of_two_thresholds, "best_by": "val_precision"}
    _, whole = train(tmp_path / "whole", **arguments)
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(1, 3)], **arguments)
    _, resumed = train(tmp_path / "run", **arguments)
    for history in (whole, resumed):
        assert [(type(v), v.shape) for v in history["val_precision"]] == 3 * [(np.ndarray, (2,))]
    np.testing.assert_equal(resumed, whole)
    first, second = whole["val_precision"][-1]
    final = record(tmp_path / "run")["final_metrics"]
    assert (final["val_precision[0]"], final["val_precision[1]"]) == (first, second)
    written = read_history(tmp_path / "run" / "history.csv")
    assert (written["val_precision[0]"][-1], written["val_precision[1]"][-1]) == (first, second)
    assert set(final) == set(written)


def test_a_metric_that_learns_its_shape_from_what_it_sees_goes_on_too(tmp_path):
    def build_of_two_labels():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="sigmoid")])
        auc = keras.metrics.AUC(multi_label=True, name="auc")
        model.compile("sgd", loss="binary_crossentropy", metrics=[auc], jit_compile=False)
        return model

    y = np.eye(2, dtype="float32")[Y]
    arguments = {"build": build_of_two_labels, "y": y, "validation_data": (X, y)}
    whole = train(tmp_path / "whole", **arguments)
    with pytest.raises(Fails):
        train(tmp_path / "run", callbacks=[FailAt(1, 3)], **arguments)
    assert_same(train(tmp_path / "run", **arguments), whole)


def test_what_all_replicas_held_alike_stays_so_on_another_number_of_them():
    replicas = Replicas(Alone(), ["CPU:0"])
    model = build(units=50)
    model.layers[1].set_weights([RNG.normal(size=50) for _ in range(4)])
    before = model.get_weights()
    arrays = {
        name: array if name.startswith("shared/") else np.repeat(array, 3, axis=0)
        for name, array in capture(model, replicas).items()
    }
    restore(model, replicas, arrays, num_replicas=3, new_seeds=lambda: None)
    for mine, was in zip(model.get_weights(), before):
        np.testing.assert_array_equal(mine, was)


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_for_a_while_is_said_and_does_not_end_the_training(tmp_path, monkeypatch, capfd):
    plain, refused = np.savez, iter("ab")

    def full_at_first(*args, **kwargs):
        full() if next(refused, None) else plain(*args, **kwargs)

    monkeypatch.setattr(checkpoints.np, "savez", full_at_first)
    train(tmp_path / "run", epochs=1)
    said = capfd.readouterr().err
    assert [step for step in range(8) if f"cannot write the checkpoint of step {step} " in said] == [2, 4]
    assert record(tmp_path / "run")["status"] == "done"


def test_a_run_whose_last_checkpoint_cannot_be_written_is_not_done(unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.np, "savez", full)
        with pytest.raises(
            HpcdlError, match="cannot write the checkpoint of step 21 .*; make room, and start"
        ):
            train(tmp_path / "run")
    assert record(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "model.keras").exists()
    assert_same(train(tmp_path / "run"), unbroken)
    assert record(tmp_path / "run")["status"] == "done"


@pytest.mark.parametrize(
    ("owner", "name", "words"),
    [
        (run_folder.RunFolder, "write_history", "is written, but not the history in"),
        (checkpoints, "_remove", "is written, but older ones remain in"),
    ],
)
def test_what_fails_after_a_checkpoint_is_written_does_not_hide_it(
    owner, name, words, unbroken, tmp_path, monkeypatch, capfd
):
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, full)
        with pytest.raises(SystemExit) as end:
            train(tmp_path / "run", callbacks=[SignalAt(0, 3)], checkpoint_every="4steps", keep_checkpoints=1)
    assert end.value.code == EXIT_REQUEUE
    said = capfd.readouterr().err
    assert f"the checkpoint of step 5 {words} {tmp_path / 'run'}: No space left on device" in said
    assert "cannot write the checkpoint" not in said
    assert record(tmp_path / "run")["status"] == "stopped"
    assert_same(train(tmp_path / "run"), unbroken)


def test_a_run_that_must_be_saved_and_cannot_be_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(HpcdlError, match="the checkpoint of step 5 .*; the one before it is the last"):
        train(tmp_path / "run", callbacks=[SignalAt(0, 3)], checkpoint_every="never")
    assert record(tmp_path / "run")["status"] == "failed"
