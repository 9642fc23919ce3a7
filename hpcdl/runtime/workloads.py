"""Ready workloads, written ``data/network``: a network on a ready data set, with recommended settings.

Synopsis::

    workload = get("fashion_mnist/cnn_dropout")
    data = workload.load(data_dir=None, least_rows=256)
    arrays = workload.arrays(data, "float32")
    with run.scope():
        model = workload.build()                # compiled; floatx and dtype policy are the caller's
    run.fit(model, arrays.x_train, arrays.y_train, validation_data=(arrays.x_test, arrays.y_test), ...)

TensorFlow is imported by ``build`` only, since devices are to be pinned first. What is known of a workload without
building it stands in ``hpcdl.common.workloads``, the networks in ``networks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

from hpcdl.common import workloads as table
from hpcdl.common.data_sets import spec_of
from hpcdl.common.workloads import SYNTHETIC, Facts
from hpcdl.runtime import datasets, inputs, synthetic
from hpcdl.runtime.data_reading import DataSet
from hpcdl.runtime.inputs import Arrays
from hpcdl.runtime.networks import NETWORKS, TOKEN_VOCABULARY, TOKENS_LENGTH, Network

#: Of synthetic images as many classes as ImageNet has.
_IMAGE_CLASSES, _TOKEN_CLASSES = 1000, 2


@dataclass(frozen=True)
class Data:
    """How the data of workloads come about.

    Attributes:
        num_classes: None: y is a number.
        load: ``load(data_dir, least_rows)``.
        arrays: ``arrays(data, dtype)``.
    """

    num_classes: Optional[int]
    load: Callable[[Union[str, Path, None], int], DataSet]
    arrays: Callable[[DataSet, str], Arrays]


@dataclass(frozen=True)
class Workload:
    """A network on a data set.

    Attributes:
        facts: what is known of it without building it.
        data: how its data come about.
        network: until its features.
    """

    facts: Facts
    data: Data
    network: Network

    def load(self, data_dir: Union[str, Path, None] = None, least_rows: int = 1) -> DataSet:
        """Returns its data set, from the first place that has it.

        Args:
            data_dir: A folder to look in first.
            least_rows: Synthetic data have at least as many.
        """
        return self.data.load(data_dir, least_rows)

    def arrays(self, data: DataSet, dtype: str) -> Arrays:
        """Turns the data set into what the model is fed, floats of a dtype."""
        return self.data.arrays(data, dtype)

    def build(self, learning_rate: Optional[float] = None) -> Any:
        """Returns the compiled model in Keras' current dtype policy; None is the recommended learning rate."""
        # Never a plain ``import keras``: under TF 2.12 that is a private face with other, legacy optimizers.
        import tensorflow as tf

        keras = tf.keras
        entrance = keras.Input(self.network.input_shape, dtype=self.network.input_dtype)
        features = self.network.features(keras, entrance)
        # Under mixed precision, what the loss is taken of stays float32; elsewhere this is the policy's dtype.
        exact = keras.mixed_precision.global_policy().variable_dtype
        num_classes = self.data.num_classes
        outputs = keras.layers.Dense(num_classes or 1)(features)
        ending = "softmax" if num_classes else "linear"
        outputs = keras.layers.Activation(ending, dtype=exact)(outputs)
        model = keras.Model(entrance, outputs, name=self.facts.network)
        model.compile(
            optimizer=_optimizer(keras, self.facts.recommended, learning_rate),
            loss="sparse_categorical_crossentropy" if num_classes else "mean_squared_error",
            metrics=["accuracy"] if num_classes else ["mean_absolute_error"],
        )
        return model


def get(name: str) -> Workload:
    """Returns the workload ``name``; BadInput with near names if there is none."""
    facts = table.get(name)
    data = _SYNTHETIC[facts.network] if facts.data == SYNTHETIC else _real(facts.data)
    return Workload(facts, data, NETWORKS.get(name) or NETWORKS[facts.network])


def _optimizer(keras: Any, recommended: table.Recommended, learning_rate: Optional[float]) -> Any:
    rate = recommended.learning_rate if learning_rate is None else learning_rate
    further = {"momentum": recommended.momentum, "nesterov": True} if recommended.momentum else {}
    return getattr(keras.optimizers, recommended.optimizer)(learning_rate=rate, **further)


_INPUTS: Mapping[str, Callable[[DataSet, str], Arrays]] = {
    "mnist": inputs.gray_images,
    "fashion_mnist": inputs.gray_images,
    "cifar10": inputs.as_stored,
    "cifar100": inputs.as_stored,
    "boston_housing": inputs.standardized,
    "imdb": inputs.texts,
    "reuters": inputs.texts,
}


def _real(name: str) -> Data:
    return Data(
        spec_of(name).num_classes,
        lambda data_dir, least_rows: datasets.load(name, data_dir),
        _INPUTS[name],
    )


_SYNTHETIC: Mapping[str, Data] = {
    "resnet50": Data(
        _IMAGE_CLASSES,
        lambda data_dir, least: synthetic.images(NETWORKS["resnet50"].input_shape, _IMAGE_CLASSES, least),
        inputs.as_stored,
    ),
    "transformer": Data(
        _TOKEN_CLASSES,
        lambda data_dir, least: synthetic.tokens(TOKENS_LENGTH, TOKEN_VOCABULARY, _TOKEN_CLASSES, least),
        inputs.as_stored,
    ),
}
