"""What a fit reads: what is refused, and that a run which was stopped goes on with the same batches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.runtime.feed import Order, place
from hpcdl.runtime.parting import Watch
from hpcdl.runtime.processes import Alone
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.sources import Reader, batch_sizes, open_source, open_validation
from tests.runtime.test_resume import FailAt, Fails, assert_same, build

keras = tf.keras
X = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")
ROWS = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.fixture(scope="module")
def reader():
    replicas = Replicas(Alone(), ["CPU:0"])
    return Reader(replicas, num_replicas=2, seed=0, per_replica_batch_size=5)


class Batches(keras.utils.Sequence):
    """Global batches by number."""

    def __init__(self, size=8, seed=0):
        if hasattr(keras, "ops"):
            super().__init__()
        self.size, self.rng = size, np.random.default_rng(seed)
        self.rows, self.read, self.ended = np.arange(50), [], 0

    def __len__(self):
        return -(-50 // self.size)

    def __getitem__(self, index):
        self.read.append(index)
        rows = self.rows[index * self.size : (index + 1) * self.size]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.rows, self.ended = self.rng.permutation(50), self.ended + 1


def generator():
    yield X[:4], Y[:4]


def needs_two(shard, more):
    return ROWS.batch(4)


REFUSED = {
    "a generator": (generator(), {}, "from_generator"),
    "a generator function": (generator, {}, "from_generator"),
    "samples without batches": (ROWS, {}, ".batch("),
    "no end": (ROWS.batch(4).repeat(), {}, "pass steps_per_epoch"),
    "no batch": (ROWS.take(0).batch(4), {}, "must have a batch"),
    "y beside a data set": (ROWS.batch(4), {"y": Y}, "beside it"),
    "four parts": (ROWS.map(lambda x, y: (x, y, y, y)).batch(4), {}, "(x, y, sample_weight)"),
    "ragged rows": (tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [2, 3]])), {}, "to_tensor"),
    "y of unknown rank": (
        ROWS.batch(4).map(lambda x, y: (x, tf.py_function(lambda y: y, [y], y.dtype))),
        {},
        "y.set_shape(",
    ),
    "parts that do not match": (tf.data.Dataset.from_tensors((X[:4], Y[:3])), {}, "[4, 3]"),
    "a function of two arguments": (needs_two, {}, "def data(shard)"),
    "a function that returns no data set": (lambda shard: (X, Y), {}, "tf.data.Dataset of a shard"),
    "more steps than items": (Batches(), {"steps_per_epoch": 9}, "smaller steps_per_epoch"),
    "steps of arrays": (X, {"y": Y, "steps_per_epoch": 3}, "arrays"),
    "class weights of no y": (
        ROWS.map(lambda x, y: x).batch(4),
        {"class_weight": {}},
        "received 0 arrays as y",
    ),
    "class weights of pixels": (
        ROWS.map(lambda x, y: (x, tf.zeros((2, 2)))).batch(4),
        {"class_weight": {}},
        "received y of shape (None, 2, 2)",
    ),
    "no steps": (ROWS.batch(4), {"steps_per_epoch": 0}, "steps_per_epoch"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_read_is_refused_in_one_line(case, reader):
    x, arguments, said = REFUSED[case]
    with pytest.raises(BadInput) as refusal:
        open_source(x, **arguments, reader=reader)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert ";" in str(refusal.value)  # the rule; what was received; the way out


@pytest.mark.parametrize(
    ("size", "arguments", "said"),
    [
        (5, (None, None), "batch by e.g. 4 or 6"),
        (1, (None, None), "batch by e.g. 2"),
        (8, (None, 10), "here 8; received global_batch_size=10"),
        (8, (8, None), "received per_replica_batch_size=8 for 2 replicas"),
    ],
)
def test_batch_sizes_that_are_not_those_of_the_data_are_refused(size, arguments, said, reader):
    with pytest.raises(BadInput, match=said):
        batch_sizes(open_source(ROWS.batch(size), reader=reader), *arguments, None, 2)


def test_a_data_set_has_the_global_batch_size(reader):
    source = open_source(ROWS.batch(8), reader=reader)
    batches = batch_sizes(source, None, None, None, 2)
    assert (batches.global_batch_size, batches.per_replica_batch_size, batches.factor) == (8, 4, 1)
    assert (
        batch_sizes(source, 4, None, None, 2).factor == 2
    )  # as with arrays: the size of a replica is the reference
    assert source.num_samples == 56  # 7 batches, of which the last one may be smaller


def test_data_are_not_copied_where_their_type_is_right(reader):
    source = open_source(X, Y, reader=reader)
    assert all(np.shares_memory(*pair) for pair in zip(source.rows, (X, Y)))
    assert open_source(X.astype("float64"), Y, reader=reader).rows[0].dtype == np.float32


def test_an_item_may_fill_the_same_array_again(reader):
    class Refilled(Batches):
        buffer = np.zeros((8, 4), "float32")

        def __getitem__(self, index):
            self.buffer[:] = index
            return self.buffer, np.full(8, index, "int32")

    elements = open_source(Refilled(), reader=reader).feed(Order(7, 1, None), reader.replicas, epochs=1)
    seen = [(x.numpy(), y.numpy()) for (x, y), _ in elements.take(7)]
    assert all((x == y[:, np.newaxis]).all() for x, y in seen)


class Numbers(Batches):
    """Items that are their own numbers; without an end where the size is None."""

    def __len__(self):
        return self.size

    if hasattr(keras, "ops"):

        @property
        def num_batches(self):
            return self.size

    def __getitem__(self, index):
        return np.full((2, 1), index, "float32"), np.full((2, 1), index, "float32")


def numbers_in_keras(items, shuffle, **arguments):
    """Lists the items that plain Keras takes in its steps."""
    seen = []

    class Notes(keras.Model):
        def train_step(self, data):
            seen.append(int(data[0][0, 0]))
            return {"loss": tf.constant(0.0)}

    inputs = keras.Input((1,))
    model = Notes(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(items, shuffle=shuffle, verbose=0, **arguments)
    return seen


# Where an epoch ends with the items, since Keras 3 cuts short the one in which they end.
@pytest.mark.parametrize(("size", "steps"), [(6, 2), (6, 6), (None, 2)])
def test_an_epoch_of_fewer_steps_than_items_goes_on_with_them_as_keras_does(size, steps, reader):
    is_keras_3 = hasattr(keras, "ops")
    if size is None and not is_keras_3:
        pytest.skip("a Sequence of Keras 2 has an end")

    def numbers(seed, first_step=0):
        source = open_source(Numbers(size), reader=reader, steps_per_epoch=steps)
        elements = source.feed(Order(2 * steps, 2, seed), reader.replicas, epochs=4, first_step=first_step)
        return [int(x[0, 0]) for (x, y), _ in elements.take(4 * steps - first_step)]

    assert numbers(None) == numbers_in_keras(Numbers(size), False, steps_per_epoch=steps, epochs=4)
    for seed in (None, 3):
        assert numbers(seed, first_step=3) == numbers(seed)[3:]
    if size is None:
        assert numbers(3) == numbers(None)
        return
    ours, theirs = numbers(3), numbers_in_keras(Numbers(size), True, steps_per_epoch=steps, epochs=4)
    for taken in (ours, theirs):
        size_of_order = size if is_keras_3 else steps  # in which no item comes twice
        orders = [taken[i : i + size_of_order] for i in range(0, len(taken), size_of_order)]
        assert all(len(set(order)) == len(order) for order in orders)
    assert ours[:size] != sorted(ours[:size])


def test_items_that_end_within_an_epoch_begin_again_in_it(reader):
    source = open_source(Numbers(5), reader=reader, steps_per_epoch=2)
    elements = source.feed(Order(4, 2, None), reader.replicas, epochs=4)
    expected = [0, 1, 2, 3, 4, 0, 1, 2] if hasattr(keras, "ops") else 4 * [0, 1]
    assert [int(x[0, 0]) for (x, y), _ in elements.take(8)] == expected


def test_what_cannot_validate_is_refused(reader):
    assert open_validation(None, reader, None) is None
    for parts in ((), [], (X, Y, Y, Y)):
        with pytest.raises(BadInput, match=f"validation_data must be .* received {len(parts)} parts"):
            open_validation(parts, reader, None)
    with pytest.raises(BadInput, match="validation_data must be a data set of batches"):
        open_validation(ROWS, reader, None)
    with pytest.raises(
        BadInput, match="validation_steps counts .*; received validation_steps=2 with arrays as valid"
    ):
        open_validation((X, Y), reader, 2)


def test_shards_that_begin_alike_or_are_longer_are_said(capfd):
    three = Reader(Replicas(Alone(), ["CPU:0"]), num_replicas=3, seed=0, per_replica_batch_size=5)
    three.replicas.per_process = 3  # all shards are read here
    source = open_source(
        lambda shard: ROWS.skip(10 if shard.index else 0).take(40 - 5 * shard.index).batch(5), reader=three
    )
    said = capfd.readouterr().err
    assert "have 6 to 8 batches; an epoch has 6 steps" in said
    assert "begin with the same samples" in said
    assert (source.batch_size, source.num_samples) == (15, 90)
    with pytest.raises(BadInput, match="must have the same size; received first batches of \\[5, 4, 3\\]"):
        open_source(lambda shard: ROWS.batch(5 - shard.index), reader=three)


def test_a_function_that_gives_all_replicas_the_same_is_refused():
    two = Reader(Replicas(Alone(), ["CPU:0"]), num_replicas=2, seed=0, per_replica_batch_size=5)
    two.replicas.per_process = 2
    with pytest.raises(
        BadInput, match=r"x\(shard\), whose 2 shards all begin with the same batch.* take the part shard"
    ):
        open_source(lambda shard: ROWS.batch(5), reader=two)


def shuffled_by(seed):
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(40, seed=seed)


@pytest.mark.parametrize(
    "shuffle", [lambda: shuffled_by(None), lambda: list_files()], ids=["samples", "files"]
)
def test_parts_of_data_that_each_replica_shuffles_otherwise_are_refused(shuffle):
    two = Reader(Replicas(Alone(), ["CPU:0"]), num_replicas=2, seed=0, per_replica_batch_size=5)
    two.replicas.per_process = 2
    # As hpcdl.init does: a shuffle takes the next number, another one for each replica.
    keras.utils.set_random_seed(0)
    with pytest.raises(BadInput, match=r"in the same order; received x\(shard\) shuffled .* shuffle=False"):
        open_source(lambda shard: shuffle().shard(shard.count, shard.index).batch(5), reader=two)


def list_files():
    return tf.data.Dataset.list_files(str(Path(__file__).parent / "*.py")).map(lambda name: (name, name))


def test_parts_of_data_that_are_shuffled_alike_or_afterwards_are_taken():
    two = Reader(Replicas(Alone(), ["CPU:0"]), num_replicas=2, seed=0, per_replica_batch_size=5)
    two.replicas.per_process = 2
    for whole, part in ((shuffled_by(7), lambda data: data), (ROWS, lambda data: data.shuffle(20))):
        source = open_source(lambda shard: part(whole.shard(2, shard.index)).batch(5), reader=two)  # noqa: B023
        assert source.batch_size == 10


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 20])
def test_parts_of_a_batch_make_the_whole(batch_size, num_replicas):
    places = [place(batch_size, replica, num_replicas, 100) for replica in range(num_replicas)]
    assert sum(p.info[0] for p in places) == pytest.approx(num_replicas)  # shares in a mean
    counted = [row for p in places if p.info[2] for row in range(p.first, p.first + p.size)]
    assert counted == list(range(batch_size))
    assert all(p.info[3] == 100 + p.first for p in places)


def train(run_dir, x, more=None, callbacks=(), **arguments):
    run = hpcdl.init(run_dir=str(run_dir))
    with run.scope():
        model = build()
    arguments = {"epochs": 3, "checkpoint_every": "2steps,1epoch", "verbose": 0, **(more or {}), **arguments}
    history = run.fit(model, x, callbacks=list(callbacks), **arguments)
    return model, history.history


def shuffled():
    """A new order in each epoch."""
    tf.random.set_seed(0)  # what init() does before a script makes its data set
    return ROWS.shuffle(50, seed=3).batch(8)


def nested():
    """An order of batches in an order of samples: the second is asked for only when the first is read."""
    tf.random.set_seed(0)
    return ROWS.shuffle(50, seed=3).batch(8).shuffle(4, seed=5)


def of_shard(shard):
    return shuffled()


KINDS = {
    "dataset": lambda: (shuffled(), {}),
    "nested": lambda: (nested(), {}),
    "repeating": lambda: (shuffled().unbatch().repeat().batch(8), {"steps_per_epoch": 5}),
    "items": lambda: (Batches(), {}),
    "some items": lambda: (Batches(), {"steps_per_epoch": 3}),
    "function": lambda: (of_shard, {"per_replica_batch_size": 8}),
}


STOPS = [("dataset", 2), ("dataset", 6), ("nested", 6), ("repeating", 2), ("items", 6), ("function", 2)]
STOPS += [("some items", 2)]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """Gives what a run that never stopped has given, for each kind of data."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = train(tmp_path_factory.mktemp(kind) / "run", *KINDS[kind]())
        return made[kind]

    return of


@pytest.mark.parametrize(("kind", "step"), STOPS)
def test_a_run_that_failed_goes_on_with_the_same_batches(kind, step, wholes, tmp_path, capfd):
    with pytest.raises(Fails):
        train(tmp_path / "run", *KINDS[kind](), callbacks=[FailAt(1, step)])
    assert_same(train(tmp_path / "run", *KINDS[kind]()), wholes(kind))
    said = capfd.readouterr().err
    assert "going on with" in said
    assert "will not be bit-exact" not in said


def test_another_order_after_a_stop_is_said(tmp_path, capfd):
    def data():
        tf.random.set_seed(0)
        return ROWS.shuffle(50, seed=3).repeat(2).batch(10)

    with pytest.raises(Fails):
        train(tmp_path / "run", data(), callbacks=[FailAt(2, 3)])
    train(tmp_path / "run", data())
    assert "the data come in another order than before the stop" in capfd.readouterr().err


def test_items_that_are_done_are_not_read_again(tmp_path):
    with pytest.raises(Fails):
        train(tmp_path / "run", Batches(), callbacks=[FailAt(1, 4)], shuffle=False)
    items = Batches()
    train(tmp_path / "run", items, shuffle=False)
    assert items.read == [
        0,
        1,
        0,
        *range(4, 7),
        *range(7),
    ]  # what items are like; whether they are the same; the rest


def test_a_validation_reads_its_data_once_and_no_further_than_its_end(tmp_path):
    begun, items = [], Batches()

    def rows():
        begun.append(1)
        yield from zip(X, Y)

    signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int32))
    data = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(10)
    data = data.apply(tf.data.experimental.assert_cardinality(5))
    train(tmp_path / "dataset", ROWS.batch(10), validation_data=data)
    assert len(begun) == 1 + 3  # what batches are like; three epochs
    train(tmp_path / "items", ROWS.batch(10), validation_data=items)
    assert items.read == [0, 1, *3 * [*range(7)]]
    assert items.ended == 3
    run = hpcdl.init()
    with run.scope():
        run.predict(build(), items, verbose=0)
    assert items.ended == 4


@pytest.mark.parametrize("last", ["cache", "cardinality"])
def test_what_is_cached_is_read_once_for_all_epochs(last, tmp_path):
    def cached(begun, num_batches):
        def rows():
            begun.append(1)
            yield from zip(X[: 10 * num_batches], Y)

        signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int32))
        data = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(10)
        told = tf.data.experimental.assert_cardinality(num_batches)
        return data.apply(told).cache() if last == "cache" else data.cache().apply(told)

    of_training, of_validation = [], []
    validation_data = cached(of_validation, 5)  # too many for the look at what batches are like to read ahead
    train(tmp_path / "run", cached(of_training, 5), validation_data=validation_data)
    assert len(of_training) == len(of_validation) == 1 + 1  # what batches are like; all epochs


def test_batches_of_every_iteration_of_an_epoch_are_compared(reader):
    sums = set()
    for first in (1, 2):
        watch = Watch(reader.replicas, batches_per_iteration=2)
        for run_step, checksum in enumerate((first, 3, 4, 5)):
            watch.note(run_step, checksum)
        sums.add(watch.so_far(3))
    assert len(sums) == 2


def test_a_folder_of_other_data_is_refused_with_what_differs(tmp_path):
    train(tmp_path / "run", ROWS.batch(10), epochs=1)
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["identity"]["data"]
    assert recorded["batches"] == 5
    for other, said in (
        (ROWS.take(40).batch(10), "data batches 5, now 4"),
        (ROWS.skip(1).batch(10), "data first_batch"),
        (ROWS.map(lambda x, y: (x, y, 1.0)).batch(10), "data spec"),
    ):
        with pytest.raises(BadInput, match="a run folder goes on with the run that it holds") as refused:
            train(tmp_path / "run", other, epochs=1)
        assert said in str(refused.value)


def test_a_shorter_iteration_is_one_line(tmp_path):
    sizes = iter([50, 50, 50, 30, 30])  # looked at, counted, trained on, ...

    def rows():
        n = next(sizes)
        return iter(zip(X[:n], Y[:n]))

    signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int32))
    data = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(10)
    with pytest.raises(HpcdlError, match="must give as many batches; received fewer than 5"):
        train(tmp_path / "run", data)


def test_class_weights_are_those_of_arrays(tmp_path):
    weights = {0: 1.0, 1: 3.0}
    of_arrays = hpcdl.init(run_dir=str(tmp_path / "arrays"))
    with of_arrays.scope():
        model = build()
    of_arrays.fit(model, X, Y, global_batch_size=10, class_weight=weights, shuffle=False, verbose=0)
    of_dataset, _ = train(tmp_path / "dataset", ROWS.batch(10), epochs=1, class_weight=weights)
    for a, b in zip(model.get_weights(), of_dataset.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_examples_of_the_documents_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text().partition("\n## Your own data")[2]
    shown: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), shown)
    assert 0 <= shown["accuracy"] <= 1
    assert set(shown["values"]) == {"loss", "accuracy"}
    assert shown["outputs"].shape == (200, 4)
    assert len(list(tmp_path.glob("runs/*/**/run.json"))) == 5
