"""Ready workloads, written ``data/network``: a network on a ready data set, with recommended settings.

Synopsis::

    workload = get("fashion_mnist/cnn_dropout")
    data = workload.arrays(datasets.load(workload.dataset), "float32")
    with run.scope():
        model = workload.build()                # compiled; floatx and dtype policy are the caller's
    run.fit(model, data.x_train, data.y_train, validation_data=(data.x_test, data.y_test), ...)

TensorFlow is imported by ``build`` only, since devices are to be pinned first.
A further network is a further row in ``_IMAGE_NETWORKS``; a further kind of data a further table beside it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Callable, List, NamedTuple, Optional

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.runtime.datasets import DataSet


class Arrays(NamedTuple):
    """What a network is fed: x as floats, y as int32 labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Recommended:
    """What ``hpcdl train`` does where the user says nothing; ``optimizer`` is a class of keras.optimizers."""

    optimizer: str
    learning_rate: float
    epochs: int
    per_replica_batch_size: int = 128
    lr_scaling: str = "linear"
    warmup_epochs: int = 1


@dataclass(frozen=True)
class Workload:
    """A network on a data set.

    Attributes:
        name: ``dataset/network``.
        build: ``build(learning_rate=None)`` returns a compiled Keras model; None is the recommended rate.
        arrays: ``arrays(data, dtype)`` turns what ``datasets.load`` returns into what the model is fed.
        num_parameters: all of the model's, of which ``num_non_trainable`` are not trained.
    """

    name: str
    dataset: str
    network: str
    description: str
    num_parameters: int
    num_non_trainable: int
    recommended: Recommended
    build: Callable[..., Any]
    arrays: Callable[[DataSet, str], Arrays]


def names() -> List[str]:
    """Returns the names of all workloads."""
    return list(_WORKLOADS)


def get(name: str) -> Workload:
    """Returns the workload ``name``; BadInput with near names if there is none."""
    if name not in _WORKLOADS:
        near = difflib.get_close_matches(name, _WORKLOADS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(_WORKLOADS)}"
        raise BadInput(f"unknown workload {name!r}; workloads are written data/network; {hint}")
    return _WORKLOADS[name]


def image_arrays(data: DataSet, dtype: str) -> Arrays:
    """Returns gray images as ``dtype`` in [0, 1] with a channel axis, and labels as int32."""
    return Arrays(
        _scaled(data.x_train, dtype), data.y_train.astype(np.int32),
        _scaled(data.x_test, dtype), data.y_test.astype(np.int32),
    )  # fmt: skip


def _scaled(images: np.ndarray, dtype: str) -> np.ndarray:
    scaled = images.astype(dtype)[..., np.newaxis]
    scaled /= 255  # In place: a second copy of the whole set would be the peak of a rank's memory.
    return scaled


@dataclass(frozen=True)
class _Network:
    """A classifier of 28 x 28 gray images; ``layers(keras.layers)`` gives all but its two ends."""

    name: str
    description: str
    num_parameters: int
    num_non_trainable: int
    layers: Callable[[Any], List[Any]]
    recommended: Recommended

    def build(self, learning_rate: Optional[float] = None) -> Any:
        """Returns the compiled model in Keras' current dtype policy."""
        # Never a plain ``import keras``: under TF 2.12 that is a private face with other, legacy optimizers.
        import tensorflow as tf

        keras = tf.keras
        optimizer = getattr(keras.optimizers, self.recommended.optimizer)
        rate = self.recommended.learning_rate if learning_rate is None else learning_rate
        # Under mixed precision, probabilities and loss stay float32; elsewhere this is the policy's dtype.
        probabilities_dtype = keras.mixed_precision.global_policy().variable_dtype
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                *self.layers(keras.layers),
                keras.layers.Dense(10),
                keras.layers.Activation("softmax", dtype=probabilities_dtype),
            ],
            name=self.name,
        )
        model.compile(
            optimizer=optimizer(learning_rate=rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model


def _fully_connected(*widths: int) -> Callable[[Any], List[Any]]:
    return lambda layers: [layers.Flatten(), *(layers.Dense(width, activation="relu") for width in widths)]


def _cnn1(layers: Any) -> List[Any]:
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(100, activation="relu"),
    ]


def _cnn2(layers: Any) -> List[Any]:
    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
    ]


def _cnn_dropout(layers: Any) -> List[Any]:
    conv1, conv2, pool, flatten, dense = _cnn2(layers)
    return [conv1, conv2, pool, layers.Dropout(0.25), flatten, dense, layers.Dropout(0.5)]


def _cnn_batchnorm(layers: Any) -> List[Any]:
    conv1, conv2, pool, flatten, dense = _cnn2(layers)
    normalized = layers.BatchNormalization
    return [conv1, normalized(), conv2, normalized(), pool, flatten, dense, normalized()]


# Optimizers and epochs of Keras' own MNIST examples for networks of this shape, but for Adam where they had
# Adadelta: a learning rate is to be scaled with the global batch, and Adadelta's of 1 is hardly one.
_DENSE = Recommended(optimizer="RMSprop", learning_rate=1e-3, epochs=20)
_CONVOLUTIONAL = Recommended(optimizer="Adam", learning_rate=1e-3, epochs=12)

_IMAGE_NETWORKS = (
    _Network("fc64", "2 dense layers of 64", 55_050, 0, _fully_connected(64, 64), _DENSE),
    _Network("fc512", "2 dense layers of 512", 669_706, 0, _fully_connected(512, 512), _DENSE),
    _Network("fc512x3", "3 dense layers of 512", 932_362, 0, _fully_connected(512, 512, 512), _DENSE),
    _Network("cnn1", "1 convolution, dense 100", 542_230, 0, _cnn1, _CONVOLUTIONAL),
    _Network("cnn2", "2 convolutions, dense 128", 1_199_882, 0, _cnn2, _CONVOLUTIONAL),
    _Network("cnn_dropout", "cnn2 with dropout", 1_199_882, 0, _cnn_dropout, _CONVOLUTIONAL),
    _Network("cnn_batchnorm", "cnn2 with batch norm", 1_200_778, 448, _cnn_batchnorm, _CONVOLUTIONAL),
)

_WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            f"{dataset}/{network.name}", dataset, network.name, network.description, network.num_parameters,
            network.num_non_trainable, network.recommended, network.build, image_arrays,
        )
        for dataset in ("mnist", "fashion_mnist")
        for network in _IMAGE_NETWORKS
    )
}  # fmt: skip
