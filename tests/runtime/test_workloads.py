"""Workloads: the workshop's networks to the parameter, in each precision, and the arrays they are fed."""

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common import data_sets
from hpcdl.common.errors import BadInput
from hpcdl.runtime import datasets, workloads

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


@pytest.mark.parametrize("network", WORKSHOP)
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_each_network_has_the_parameters_of_the_workshop(dataset, network):
    workload = workloads.get(f"{dataset}/{network}")
    model = workload.build()
    built = (model.count_params(), num_values(model.non_trainable_weights))
    assert built == WORKSHOP[network]
    assert built == (workload.num_parameters, workload.num_non_trainable)


def test_the_names_are_those_of_all_networks_on_both_sets_and_each_set_is_known():
    assert set(workloads.names()) == {f"{d}/{n}" for d in ("mnist", "fashion_mnist") for n in WORKSHOP}
    for name in workloads.names():
        workload = workloads.get(name)
        assert (workload.name, f"{workload.dataset}/{workload.network}") == (name, name)
        assert workload.dataset in data_sets.names()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("fashion_mnist/cnn_dropuot", "fashion_mnist/cnn_dropout"),
        ("mnist/fc", "mnist/fc64"),
        ("cnn2", "mnist/cnn2"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones_in_one_line(wrong, hint):
    with pytest.raises(BadInput) as caught:
        workloads.get(wrong)
    message = str(caught.value)
    assert repr(wrong) in message
    assert hint in message
    assert "\n" not in message


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(BadInput, match="known are mnist/fc64.*fashion_mnist/cnn_batchnorm"):
        workloads.get("zzz")


def test_the_learning_rate_is_the_recommended_one_unless_given():
    workload = workloads.get("mnist/fc64")
    assert float(workload.build().optimizer.learning_rate) == pytest.approx(
        workload.recommended.learning_rate
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


def tiny_set(**arrays):
    images = np.array([[[0, 51], [102, 255]]], np.uint8)
    images.setflags(write=False)
    given = {
        "x_train": images,
        "y_train": np.array([9], np.uint8),
        "x_test": images,
        "y_test": np.array([3], np.uint8),
    }
    return datasets.DataSet("tiny", 10, **given, source="a test", sha256={})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_become_floats_from_0_to_1_with_a_channel_axis(dtype):
    arrays = workloads.image_arrays(tiny_set(), dtype)
    for x in (arrays.x_train, arrays.x_test):
        assert (x.shape, x.dtype) == ((1, 2, 2, 1), dtype)
        np.testing.assert_array_equal(x.ravel(), np.array([0, 51, 102, 255], dtype) / np.array(255, dtype))
    for y, label in ((arrays.y_train, 9), (arrays.y_test, 3)):
        assert y.dtype == np.int32
        assert list(y) == [label]


def test_fc64_learns_real_fashion_mnist():
    workload = workloads.get("fashion_mnist/fc64")
    data = workload.arrays(datasets.load(workload.dataset), "float32")
    keras.utils.set_random_seed(0)
    model = workload.build()
    model.fit(data.x_train[:12_800], data.y_train[:12_800], batch_size=128, epochs=1, verbose=0)
    _, accuracy = model.evaluate(data.x_test, data.y_test, batch_size=1000, verbose=0)
    assert accuracy > 0.7


def test_cnn_dropout_learns_real_fashion_mnist():
    workload = workloads.get("fashion_mnist/cnn_dropout")
    data = workload.arrays(datasets.load(workload.dataset), "float32")
    keras.utils.set_random_seed(0)
    model = workload.build()
    model.fit(data.x_train[:3_840], data.y_train[:3_840], batch_size=128, epochs=1, verbose=0)
    _, accuracy = model.evaluate(data.x_test[:2000], data.y_test[:2000], batch_size=500, verbose=0)
    assert accuracy > 0.6
