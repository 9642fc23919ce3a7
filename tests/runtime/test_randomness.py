"""What draws random numbers that a checkpoint cannot hold is named; Keras' own layers are not among it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import hpcdl
from hpcdl.runtime.keras_edge import seed_variables
from hpcdl.runtime.randomness import stateful_random_ops
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.steps import split_seeds
from tests.runtime.runs import Twins, make_run

keras = tf.keras
IS_KERAS_3 = hasattr(keras, "ops")
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


class Drawing(LAYERS.Layer):
    """Draws from a generator of the layer's own, from one of the script's, and where Keras does by itself."""

    def __init__(self, generators=()):
        super().__init__()
        self.of_layer = tf.random.Generator.from_seed(1)
        self.draws = list(generators)

    def call(self, inputs, training=None):
        drawn = tf.cast(self.of_layer.normal(tf.shape(inputs)), inputs.dtype)
        if IS_KERAS_3:
            drawn += keras.random.normal(tf.shape(inputs), dtype=inputs.dtype)
        for draw in self.draws:
            drawn += draw(tf.shape(inputs))
        return inputs + drawn


def fit_drawing(run, generators=(), **arguments):
    with run.scope():
        model = keras.Sequential(
            [keras.Input((4,)), Drawing(generators), LAYERS.Dropout(0.5), LAYERS.Dense(1)]
        )
        model.compile("sgd", "mse", jit_compile=False)
    x = np.ones((12, 4), "float32")
    run.fit(model, x, x[:, :1], global_batch_size=4, verbose=0, checkpoint_every="1steps", **arguments)
    return model


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise OSError("as a full disk")


def test_what_keras_and_generators_of_layers_draw_is_the_same_after_a_stop(tmp_path, capsys):
    def start(folder, **arguments):
        return fit_drawing(hpcdl.init(strategy="single", run_dir=str(tmp_path / folder)), **arguments)

    whole = start("whole").get_weights()
    with pytest.raises(OSError, match="full disk"):
        start("stopped", callbacks=[Fails()])
    resumed = start("stopped").get_weights()
    text = capsys.readouterr().err
    assert "going on with" in text
    assert "bit-exact" not in text
    for a, b in zip(whole, resumed):
        np.testing.assert_array_equal(a, b)


def generator_of_the_script():
    if IS_KERAS_3:
        shared = keras.random.SeedGenerator(3)
        return lambda shape: keras.random.normal(shape, seed=shared)
    return tf.random.Generator.from_seed(5).normal


def test_a_generator_that_no_layer_has_is_said(tmp_path, capsys):
    fit_drawing(make_run(tmp_path / "run"), [generator_of_the_script()])
    assert "received 1 in the step that no layer has" in capsys.readouterr().err


def test_each_rank_draws_numbers_of_its_own(tmp_path):
    model = fit_drawing(make_run(tmp_path / "run"))
    states = seed_variables(model)
    of_rank_0 = [variable.numpy().tolist() for variable in states]
    rank_1 = Twins()
    rank_1.rank = 1
    split_seeds(model, 0, Replicas(rank_1, ["CPU:0"]))
    assert len(states) == (3 if IS_KERAS_3 else 2)
    for variable, other in zip(states, of_rank_0):
        assert variable.numpy().tolist() != other


@pytest.mark.parametrize(("layer", "is_said"), [(Noise, True), (lambda: LAYERS.Dropout(0.5), False)])
def test_a_run_says_that_its_resume_will_not_be_bit_exact(run, layer, is_said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run.scope():
        model = keras.Sequential([keras.Input((4,)), layer(), LAYERS.Dense(1)])
        model.compile("sgd", "mse")
    x = np.zeros((8, 4), "float32")
    run.fit(model, x, x[:, :1], global_batch_size=4, verbose=0)
    assert ("a resumed run will not be bit-exact" in capsys.readouterr().err) == is_said
