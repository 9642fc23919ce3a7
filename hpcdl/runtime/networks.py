"""The networks of the ready workloads, without their ends: what becomes of an input until its features.

Synopsis::

    network = NETWORKS["cnn_dropout"]
    inputs = keras.Input(network.input_shape, dtype=network.input_dtype)
    features = network.features(keras, inputs)

Pictures in colour come as bytes and are scaled by the network, so that a rank keeps a quarter of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Tuple

#: Of texts: words that are told apart, words of a text that are read.
VOCABULARY, TEXT_LENGTH = 10_000, 256
#: Of synthetic tokens, and classes of synthetic data.
TOKEN_VOCABULARY, TOKENS_LENGTH = 8_192, 128


@dataclass(frozen=True)
class Network:
    """A network up to its features.

    Attributes:
        input_shape: Of one row.
        input_dtype: None: Keras' floatx.
        features: ``features(keras, inputs)``.
    """

    input_shape: Tuple[int, ...]
    input_dtype: Optional[str]
    features: Callable[[Any, Any], Any]


def _in_turn(make_layers: Callable[[Any], List[Any]]) -> Callable[[Any, Any], Any]:
    """Makes features of layers that follow each other."""

    def features(keras: Any, inputs: Any) -> Any:
        flowing = inputs
        for layer in make_layers(keras.layers):
            flowing = layer(flowing)
        return flowing

    return features


def _gray(make_layers: Callable[[Any], List[Any]]) -> Network:
    return Network((28, 28, 1), None, _in_turn(make_layers))


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


def _colour_cnn(layers: Any) -> List[Any]:
    """The network of Keras' CIFAR-10 example."""
    made = [layers.Rescaling(1 / 255)]
    for width in (32, 64):
        made += [
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.Conv2D(width, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
        ]
    return [*made, layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dropout(0.5)]


def _word_vectors(width: int) -> Callable[[Any], List[Any]]:
    return lambda layers: [
        layers.Embedding(VOCABULARY, width, mask_zero=True),  # zeros are no words, and not in the mean
        layers.GlobalAveragePooling1D(),
        layers.Dense(width, activation="relu"),
    ]


def _resnet50(keras: Any, inputs: Any) -> Any:
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    body = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=scaled, pooling="avg")
    return body.output


def _transformer(
    keras: Any, inputs: Any, *, width: int = 128, num_heads: int = 4, num_blocks: int = 4
) -> Any:
    layers = keras.layers
    flowing = layers.Embedding(TOKEN_VOCABULARY, width)(inputs)
    # Where a token stands, from its neighbours and the zeros beyond both ends: needs no layer of hpcdl's own, so that
    # plain Keras loads the model.
    flowing = layers.Add()([flowing, layers.Conv1D(width, 3, padding="same")(flowing)])
    for _ in range(num_blocks):
        normalized = layers.LayerNormalization(epsilon=1e-5)(flowing)
        attended = layers.MultiHeadAttention(num_heads, width // num_heads)(normalized, normalized)
        flowing = layers.Add()([flowing, attended])
        hidden = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization(epsilon=1e-5)(flowing))
        flowing = layers.Add()([flowing, layers.Dense(width)(hidden)])
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-5)(flowing))


_COLOUR = Network((32, 32, 3), "uint8", _in_turn(_colour_cnn))

#: By name, or by ``data/network`` where a network differs by its data.
NETWORKS: Mapping[str, Network] = {
    "fc64": _gray(_fully_connected(64, 64)),
    "fc512": _gray(_fully_connected(512, 512)),
    "fc512x3": _gray(_fully_connected(512, 512, 512)),
    "cnn1": _gray(_cnn1),
    "cnn2": _gray(_cnn2),
    "cnn_dropout": _gray(_cnn_dropout),
    "cnn_batchnorm": _gray(_cnn_batchnorm),
    "cnn": _COLOUR,
    "regression": Network((13,), None, _in_turn(_fully_connected(64, 64))),
    "imdb/embedding": Network((TEXT_LENGTH,), "int32", _in_turn(_word_vectors(16))),
    "reuters/embedding": Network((TEXT_LENGTH,), "int32", _in_turn(_word_vectors(64))),
    "resnet50": Network((224, 224, 3), "uint8", _resnet50),
    "transformer": Network((TOKENS_LENGTH,), "int32", _transformer),
}
