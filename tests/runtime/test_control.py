"""What the control runs of a benchmark leave out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.bench import BenchSettings
from hpcdl.runtime import checkpointing
from hpcdl.runtime.control import FromMemory
from hpcdl.runtime.feed import Arrays, Order
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.sources import Reader, open_source
from tests.runtime.runs import make_run

ROWS = np.arange(12)
ORDER = Order(num_samples=12, global_batch_size=4, seed=7)


def test_from_memory_the_first_batch_comes_for_ever():
    elements = Arrays(ROWS, 12).feed(ORDER, FromMemory(Alone(), ["CPU:0"]), epochs=1)
    first = ORDER.cut(ORDER.permutation(0), 0).tolist()
    assert [batch.numpy().tolist() for batch, _ in elements.take(7)] == [first] * 7


def test_from_memory_that_of_a_data_set_too():
    replicas = FromMemory(Alone(), ["CPU:0"])
    source = open_source(
        tf.data.Dataset.from_tensor_slices(ROWS).batch(4), reader=Reader(replicas, 1, seed=0)
    )
    elements = source.feed(Order(12, 4, None), replicas, epochs=1)
    assert [batch.numpy().tolist() for batch, _ in elements.take(7)] == [[0, 1, 2, 3]] * 7


def test_of_a_benchmark_no_state_is_gathered(tmp_path, monkeypatch):
    def capture(model, replicas):
        raise AssertionError("ranks that do not hear of each other would wait here for ever")

    monkeypatch.setattr(checkpointing, "capture", capture)
    run = make_run(tmp_path / "run", bench=BenchSettings(steps=5))
    with run.scope():
        model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)
    x = np.ones((8, 1), "float32")
    with pytest.raises(SystemExit) as end:  # the script's next lines may need what a benchmark leaves out
        run.fit(model, x, x, global_batch_size=4, checkpoint_every="1steps", callbacks=[])
    assert end.value.code == 0
    assert len(model.history.epoch) == 3


@pytest.mark.parametrize("epochs", [1, 2])
def test_else_all_samples_come_in_each_epoch(epochs):
    elements = Arrays(ROWS, 12).feed(ORDER, Replicas(Alone(), ["CPU:0"]), epochs=epochs)
    seen = [batch.numpy().tolist() for batch, _ in elements.take(3 * epochs)]
    assert sorted(sum(seen, [])) == sorted(ROWS.tolist() * epochs)
