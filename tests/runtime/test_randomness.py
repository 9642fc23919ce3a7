"""What draws random numbers that a checkpoint cannot hold is named; Keras' own layers are not among it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.runtime.randomness import stateful_random_ops

keras = tf.keras
LAYERS = keras.layers
FROM_VECTORS = {
    "dropout": lambda: LAYERS.Dropout(0.5),
    "gaussian noise": lambda: LAYERS.GaussianNoise(0.5),
    "gaussian dropout": lambda: LAYERS.GaussianDropout(0.5),
    "alpha dropout": lambda: LAYERS.AlphaDropout(0.5),
}
FROM_SERIES = {
    "spatial dropout": lambda: LAYERS.SpatialDropout1D(0.5),
    "recurrent dropout": lambda: LAYERS.LSTM(3, dropout=0.5, recurrent_dropout=0.5),
}
FROM_IMAGES = {
    "flip": lambda: LAYERS.RandomFlip(),
    "rotation": lambda: LAYERS.RandomRotation(0.1),
    "translation": lambda: LAYERS.RandomTranslation(0.1, 0.1),
}


class Noise(LAYERS.Layer):
    """What users write."""

    def call(self, inputs, training=None):
        return inputs + tf.random.normal(tf.shape(inputs), dtype=inputs.dtype)


@pytest.fixture(scope="module")
def run():
    return hpcdl.init(strategy="single")


def names(run, shape, layers):
    with run.scope():
        model = keras.Sequential([keras.Input(shape), *layers])

    @tf.function
    def step(rows):
        run._replicas.distribution.run(lambda: model(rows, training=True))

    return stateful_random_ops(step.get_concrete_function(tf.zeros((1, *shape))).graph)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [((4,), FROM_VECTORS), ((5, 4), FROM_SERIES), ((8, 8, 3), FROM_IMAGES)],
    ids=["vectors", "series", "images"],
)
def test_layers_of_keras_keep_their_random_states_in_variables(run, shape, layers):
    assert names(run, shape, [make() for make in layers.values()]) == []


def test_a_layer_that_draws_from_tensorflow_itself_is_named(run):
    (name,) = names(run, (4,), [LAYERS.Dropout(0.5), Noise(name="noisy")])
    assert "noisy" in name


@pytest.mark.parametrize(("layer", "is_said"), [(Noise, True), (lambda: LAYERS.Dropout(0.5), False)])
def test_a_run_says_that_its_resume_will_not_be_bit_exact(run, layer, is_said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), layer(), LAYERS.Dense(1)])
        model.compile("sgd", "mse")
    x = np.zeros((8, 4), "float32")
    run.fit(model, x, x[:, :1], global_batch_size=4, verbose=0)
    assert ("a resumed run will not be bit-exact" in capsys.readouterr().err) == is_said
