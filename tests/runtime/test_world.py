"""Loops of a script's own in one process: the same calls, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.runtime.custom_loops import shard
from tests.runtime.runs import Alone, Twins, make_run

keras = tf.keras


class Rank(Alone):
    """A rank that needs no other one."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Others(Twins):
    """Rank 0 of a world of two whose other rank has drawn another number."""

    def gather_json(self, value):
        return [value, [[seed, op_seed + 1] for seed, op_seed in value]]


def model():
    made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    made.compile("sgd", loss="mse", jit_compile=False)
    return made


def test_alone_gradients_are_their_own_mean_and_dense():
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([1, 1]), tf.constant([3, 1]))
    given = [tf.constant([1.0, 2.0]), None, rows]
    for weight in (None, 7, tf.constant(3)):
        first, nothing, dense = make_run().average_gradients(given, weight)
        np.testing.assert_array_equal(first, [1.0, 2.0])
        assert nothing is None
        np.testing.assert_array_equal(dense, [[0.0], [3.0], [0.0]])


def test_where_no_replica_has_a_sample_the_mean_is_0():
    assert float(make_run().average_gradients([tf.constant(np.nan)], weight=0)[0]) == 0.0


@pytest.mark.parametrize(
    "elements",
    [
        tf.range(7),
        (tf.range(7), {"x": tf.range(7, 14)}),
        (tf.range(7),),
        {"x": tf.range(7)},
    ],
    ids=["tensor", "tuple", "tuple of one", "dict"],
)
def test_a_dataset_of_unknown_length_is_divided_as_one_of_a_known_length(elements):
    whole = tf.data.Dataset.from_tensor_slices(elements)
    unknown = whole.filter(lambda *element: True)
    for rank in range(3):
        part, other = (shard(elements_of, Rank(rank, 3)) for elements_of in (whole, unknown))
        assert part.element_spec == other.element_spec == whole.element_spec
        values = [[np.asarray(t).tolist() for t in tf.nest.flatten(element)] for element in part]
        assert values == [[np.asarray(t).tolist() for t in tf.nest.flatten(element)] for element in other]
        assert [value[0] % 7 for value in values] == [rank, rank + 3]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(BadInput, match=r"received list; make one"):
        make_run().shard([1, 2])
    with pytest.raises(BadInput, match="received 2 elements for 3 ranks"):
        shard(tf.data.Dataset.range(2), Rank(0, 3))


def test_a_part_of_data_that_each_rank_shuffles_otherwise_is_refused():
    whole = tf.data.Dataset.range(10)
    for processes, shuffled in ((Others(), whole.shuffle(10, seed=1)), (Twins(), unseeded(whole))):
        with pytest.raises(BadInput, match="in the same order; received a data set shuffled in another one"):
            shard(shuffled.batch(1), processes)
    alike = [list(shard(whole.shuffle(10, seed=3), Twins()).as_numpy_iterator()) for _ in range(2)]
    assert alike[0] == alike[1]
    assert list(shard(whole, Rank(1, 2)).shuffle(10).as_numpy_iterator()) != []  # afterwards as one likes


def unseeded(data):
    tf.random.set_seed(None)  # of a script that sets no seed; hpcdl.init sets one
    return data.shuffle(10)


def test_a_saved_model_is_whole_and_replaces_the_one_before(tmp_path):
    first, second = model(), model()
    for made in (first, second):
        make_run().save(made, str(tmp_path / "new" / "model.keras"))
    loaded = keras.models.load_model(tmp_path / "new" / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], second.get_weights()[0])
    assert type(loaded.optimizer) is type(keras.optimizers.get("sgd"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.keras"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda run, folder: run.broadcast([]),
        lambda run, folder: run.shard(tf.data.Dataset.range(4)),
        lambda run, folder: run.average_gradients([]),
        lambda run, folder: run.save(model(), folder / "model.keras"),
    ],
    ids=["broadcast", "shard", "average_gradients", "save"],
)
def test_a_plan_ends_where_a_loop_of_the_scripts_own_begins(begin, tmp_path, capsys):
    with pytest.raises(SystemExit) as leaving:
        begin(make_run(world_size=4, is_plan_only=True), tmp_path)
    assert leaving.value.code == 0
    assert "a loop of its own" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
