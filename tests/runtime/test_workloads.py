"""Workloads: each network to the parameter, in each precision, and the arrays they are fed."""

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common import data_sets
from hpcdl.common import workloads as table
from hpcdl.runtime import data_reading, inputs, synthetic, workloads
from hpcdl.runtime.ragged import Ragged

#: Network -> (parameters, of which not trainable), as the workshop has them.
WORKSHOP = {
    "fc64": (55_050, 0),
    "fc512": (669_706, 0),
    "fc512x3": (932_362, 0),
    "cnn1": (542_230, 0),
    "cnn2": (1_199_882, 0),
    "cnn_dropout": (1_199_882, 0),
    "cnn_batchnorm": (1_200_778, 448),
}
keras = tf.keras


@pytest.fixture
def precision():
    """Sets floatx and the dtype policy as a caller of ``build`` would; undone afterwards."""

    def set_precision(policy):
        keras.backend.set_floatx("float64" if policy == "float64" else "float32")
        keras.mixed_precision.set_global_policy(policy)

    yield set_precision
    set_precision("float32")


def num_values(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def parameters_of(name):
    model = workloads.get(name).build()
    return model.count_params(), num_values(model.non_trainable_weights)


@pytest.mark.parametrize("network", WORKSHOP)
def test_each_network_of_the_workshop_has_its_parameters_on_both_of_its_sets(network):
    assert parameters_of(f"mnist/{network}") == WORKSHOP[network]
    for dataset in ("mnist", "fashion_mnist"):
        facts = table.get(f"{dataset}/{network}")
        assert (facts.num_parameters, facts.num_non_trainable) == WORKSHOP[network]


@pytest.mark.parametrize("name", [name for name in table.names() if "mnist" not in name])
def test_each_other_network_has_the_parameters_that_the_table_says(name):
    facts = table.get(name)
    assert parameters_of(name) == (facts.num_parameters, facts.num_non_trainable)


@pytest.mark.parametrize("name", table.names())
def test_each_workload_has_data_of_as_many_classes_as_it_has_outputs(name):
    workload = workloads.get(name)
    assert workload.facts.name == name
    if workload.facts.data != table.SYNTHETIC:
        assert workload.data.num_classes == data_sets.spec_of(workload.facts.data).num_classes


def test_the_learning_rate_is_the_recommended_one_unless_given():
    workload = workloads.get("mnist/fc64")
    assert float(workload.build().optimizer.learning_rate) == pytest.approx(
        workload.facts.recommended.learning_rate
    )
    assert float(workload.build(learning_rate=0.25).optimizer.learning_rate) == 0.25


@pytest.mark.parametrize("network", WORKSHOP)
def test_the_optimizer_is_a_plain_one_of_this_keras_and_not_a_legacy_one(network):
    optimizer = workloads.get(f"mnist/{network}").build().optimizer
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert type(optimizer) is getattr(keras.optimizers, "RMSprop" if network.startswith("fc") else "Adam")
    assert "legacy" not in type(optimizer).__module__


def test_two_models_share_nothing():
    workload = workloads.get("mnist/fc64")
    first, second = workload.build(), workload.build()
    assert first.optimizer is not second.optimizer
    before = second.get_weights()
    first.set_weights([np.zeros_like(weight) for weight in first.get_weights()])
    for kept, now in zip(before, second.get_weights()):
        np.testing.assert_array_equal(kept, now)


@pytest.mark.parametrize(
    ("policy", "compute", "kept"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("mixed_float16", "float16", "float32"),
        ("mixed_bfloat16", "bfloat16", "float32"),
    ],
)
@pytest.mark.parametrize("network", ["fc64", "cnn_dropout", "cnn_batchnorm"])
def test_a_network_computes_in_the_callers_precision_and_keeps_its_probabilities_exact(
    precision, network, policy, compute, kept
):
    if (network, compute) == ("cnn_batchnorm", "bfloat16") and tf.__version__.startswith("2.12."):
        pytest.skip("TensorFlow 2.12 normalizes no bfloat16 on a CPU")
    precision(policy)
    model = workloads.get(f"mnist/{network}").build()
    x = np.random.default_rng(0).random((4, 28, 28, 1)).astype(kept)
    probabilities = model(x).numpy()
    assert model.layers[-2].compute_dtype == compute
    assert {tf.as_dtype(weight.dtype).name for weight in model.trainable_weights} == {kept}
    assert probabilities.dtype == kept
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6 if kept == "float32" else 1e-14)
    loss = model.train_on_batch(x, np.array([0, 1, 2, 3]))[0]
    assert np.isfinite(loss)


def tiny_set(**changes):
    images = np.array([[[0, 51], [102, 255]]], np.uint8)
    images.setflags(write=False)
    given = {
        "x_train": images,
        "y_train": np.array([9], np.uint8),
        "x_test": images,
        "y_test": np.array([3], np.uint8),
    }
    return data_reading.DataSet("tiny", 10, **{**given, **changes}, source="a test", sha256={})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_become_floats_from_0_to_1_with_a_channel_axis(dtype):
    arrays = inputs.gray_images(tiny_set(), dtype)
    for x in (arrays.x_train, arrays.x_test):
        assert (x.shape, x.dtype) == ((1, 2, 2, 1), dtype)
        np.testing.assert_array_equal(x.ravel(), np.array([0, 51, 102, 255], dtype) / np.array(255, dtype))
    for y, label in ((arrays.y_train, 9), (arrays.y_test, 3)):
        assert y.dtype == np.int32
        assert list(y) == [label]


def test_photographs_stay_bytes():
    arrays = inputs.as_stored(tiny_set(y_train=np.array([[9]], np.uint8)), "float32")
    assert arrays.x_train.dtype == np.uint8
    assert (arrays.y_train.dtype, arrays.y_train.tolist()) == (np.int32, [9])


def test_numbers_are_standardized_by_the_training_part_only():
    random = np.random.default_rng(0)
    x_train, x_test = random.normal(5, 3, (50, 13)), random.normal(9, 3, (20, 13))
    data = tiny_set(x_train=x_train, x_test=x_test, y_train=np.arange(50.0), y_test=np.arange(20.0))
    arrays = inputs.standardized(data, "float64")
    np.testing.assert_allclose(arrays.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(arrays.x_train.std(axis=0), 1)
    np.testing.assert_allclose(arrays.x_test, (x_test - x_train.mean(axis=0)) / x_train.std(axis=0))
    assert arrays.y_train.shape == (50, 1)


def test_texts_become_rows_of_one_length():
    texts = Ragged.of_lists([[1, 14, 22], [1, 20_000], list(range(1, 400))])
    arrays = inputs.texts(tiny_set(x_train=texts, x_test=texts, y_train=np.arange(3)), "float32")
    assert (arrays.x_train.shape, arrays.x_train.dtype) == ((3, 256), np.int32)
    assert arrays.x_train[:2, -3:].tolist() == [[1, 14, 22], [0, 1, 2]]
    assert arrays.x_train[2].tolist() == list(range(144, 400))


def test_synthetic_data_are_the_same_on_each_call_say_what_they_are_and_fill_a_batch():
    first, second = (synthetic.images((4, 4, 3), num_classes=5, least_rows=300) for _ in range(2))
    assert first.x_train.shape == (300, 4, 4, 3)
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.y_test, second.y_test)
    assert set(first.y_train) <= set(range(5))
    tokens = synthetic.tokens(7, vocabulary=11, num_classes=2, least_rows=1)
    assert tokens.x_train.shape == (256, 7)
    assert tokens.x_train.max() < 11
    for data, name in ((first, "synthetic images"), (tokens, "synthetic tokens")):
        assert data.name == name
        assert data.source == "random numbers (seed 0), not real data"
        assert data.name not in data_sets.names()


@pytest.mark.parametrize("name", ["boston_housing/regression", "imdb/embedding"])
def test_a_network_learns_what_is_easy(name):
    workload = workloads.get(name)
    random = np.random.default_rng(0)
    shape = workload.network.input_shape
    if name.startswith("imdb"):
        y = random.integers(0, 2, 256)
        x = random.integers(3, 100, (256, *shape)) + 100 * y[:, np.newaxis]  # each class has its words
    else:
        x = random.normal(size=(256, *shape))
        y = x[:, :1]
    keras.utils.set_random_seed(0)
    model = workload.build(learning_rate=0.01)
    losses = model.fit(x, y, batch_size=32, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


def test_fc64_learns_real_fashion_mnist():
    workload = workloads.get("fashion_mnist/fc64")
    data = workload.arrays(workload.load(), "float32")
    keras.utils.set_random_seed(0)
    model = workload.build()
    model.fit(data.x_train[:12_800], data.y_train[:12_800], batch_size=128, epochs=1, verbose=0)
    _, accuracy = model.evaluate(data.x_test, data.y_test, batch_size=1000, verbose=0)
    assert accuracy > 0.7


def test_cnn_dropout_learns_real_fashion_mnist():
    workload = workloads.get("fashion_mnist/cnn_dropout")
    data = workload.arrays(workload.load(), "float32")
    keras.utils.set_random_seed(0)
    model = workload.build()
    model.fit(data.x_train[:3_840], data.y_train[:3_840], batch_size=128, epochs=1, verbose=0)
    _, accuracy = model.evaluate(data.x_test[:2000], data.y_test[:2000], batch_size=500, verbose=0)
    assert accuracy > 0.6
