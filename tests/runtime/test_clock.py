"""The clock of a run: what a full disk keeps it from writing, training does without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.step_times import StepLog, read_step_times
from hpcdl.runtime.clock import Clock
from tests.runtime.runs import make_run

keras = tf.keras


def test_step_times_that_cannot_be_written_are_said_once_and_training_goes_on(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)

    class DiskFull(keras.callbacks.Callback):
        """Leaves no place for the steps of the first two of three epochs."""

        def on_epoch_begin(self, epoch, logs=None):
            steps = tmp_path / "run" / "steps"
            if epoch == 0:
                steps.write_bytes(b"")
            elif epoch == 2:
                steps.unlink()

    x = np.zeros((20, 4), "float32")
    fit = run.fit(model, x, x[:, :1], global_batch_size=10, epochs=3, verbose=0, callbacks=DiskFull())
    assert len(fit.history["loss"]) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if "how long the steps" in line]
    assert len(said) == 1
    assert "epoch 1 took" in said[0]
    assert "training goes on" in said[0]
    assert read_step_times(tmp_path / "run").ranks[0].first_step == 4


def test_the_steps_of_a_long_epoch_are_there_before_it_is_over(tmp_path):
    clock = Clock(StepLog(tmp_path, 0, "n0"), steps_per_epoch=3, write_every_s=0.0)
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        for batch in range(3):
            clock.on_train_batch_begin(batch)
            clock.on_train_batch_end(batch)
            steps = read_step_times(tmp_path)
            assert steps.problems == []
            assert len(steps.ranks[0].step_seconds) == 3 * epoch + batch + 1
        clock.on_epoch_end(epoch)
    found = read_step_times(tmp_path).ranks[0]
    assert found.first_step == 0
    assert len(found.step_seconds) == 6
    assert clock.epoch_seconds == [
        pytest.approx(sum(found.step_seconds[at : at + 3]), abs=1e-6) for at in (0, 3)
    ]
