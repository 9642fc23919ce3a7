"""What steps of the user's log, and what they are given: as plain Keras has it, over all replicas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from tests.runtime.runs import Twins, make_run

keras = tf.keras
IS_KERAS_3 = hasattr(keras, "ops")
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X[:, :1] + 1
FIT = {"global_batch_size": 8, "verbose": 0}


class Own(keras.Model):
    """Steps that log a loss which they work out by themselves, and leave Keras' metric of it alone."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return {"loss": loss}

    def test_step(self, data):
        return {"loss": tf.reduce_mean((self(data[0]) - data[1]) ** 2)}


class Guide(Own):
    """Steps as Keras' guide has them: the results of all metrics, in dicts where there are several."""

    def train_step(self, data):
        loss = super().train_step(data)["loss"]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(data[1], self(data[0], training=True))
        return {metric.name: metric.result() for metric in self.metrics}


class Traced(Own):
    """Steps under a tf.function of the user's."""

    @tf.function
    def train_step(self, data):
        return super().train_step(data)

    @tf.function
    def test_step(self, data):
        return super().test_step(data)


class Alone(keras.Model):
    """A train_step that trains on x without y, and takes it as Keras gives it."""

    def train_step(self, data):
        self.given.append(tf.nest.map_structure(lambda tensor: tensor.shape, data))
        with tf.GradientTape() as tape:
            x = tf.nest.flatten(data)[0]
            loss = tf.reduce_sum(self(x, training=True) ** 2) / tf.cast(tf.shape(x)[0], x.dtype)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return {"my_loss": loss}

    def predict_step(self, data):
        self.given.append(tf.nest.map_structure(lambda tensor: tensor.shape, data))
        return self(tf.nest.flatten(data)[0])


def build(run, kind, **compiled):
    keras.utils.set_random_seed(0)
    with run.scope():
        inputs = keras.Input((4,))
        model = kind(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", **{"loss": "mse", "jit_compile": False, **compiled})
    model.given = []
    return model


@pytest.mark.parametrize("metrics", [[], ["mae"]])
@pytest.mark.parametrize("processes", [None, Twins])
def test_a_loss_that_a_step_logs_by_itself_is_logged(metrics, processes, tmp_path):
    run = make_run(tmp_path / "run", processes() if processes else None)
    model = build(run, Own, metrics=metrics)
    logs = run.fit(model, X, Y, validation_data=(X, Y), epochs=2, **FIT).history
    assert set(logs) == {"loss", "val_loss"}
    assert min(logs["loss"]) > 0.01
    # What the last step of a validation logs; a metric would hold the mean of all.
    expected = float(tf.reduce_mean((model(X[-8:]) - Y[-8:]) ** 2))
    assert logs["val_loss"][-1] == pytest.approx(expected, rel=1e-4) or processes is Twins
    values = run.evaluate(model, X, Y, return_dict=True, **FIT)  # tensors, in a Keras 3 before 3.15
    assert {name: float(value) for name, value in values.items()} == {
        "loss": pytest.approx(logs["val_loss"][-1])
    }


@pytest.mark.skipif(not IS_KERAS_3, reason="the metrics of Keras 2 are not in a dict")
def test_metrics_in_dicts_are_logged_as_keras_logs_them(tmp_path):
    plain = build(make_run(), Guide, metrics=["mae"]).fit(
        X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0
    )
    run = make_run(tmp_path / "run")
    mine = run.fit(build(run, Guide, metrics=["mae"]), X, Y, epochs=2, shuffle=False, **FIT)
    assert set(mine.history) == {"loss", "mae"}
    for name, values in mine.history.items():
        np.testing.assert_allclose(values, plain.history[name], rtol=1e-5)


def test_steps_under_a_function_of_the_users_train_in_each_fit(tmp_path):
    run = make_run(tmp_path / "run", Twins())
    model = build(run, Traced)
    first, second = (
        run.fit(model, X, Y, validation_data=(X, Y), **FIT).history["val_loss"][0] for _ in range(2)
    )
    assert second < first
    assert float(run.evaluate(model, X, Y, return_dict=True, **FIT)["loss"]) == pytest.approx(second)


@pytest.mark.parametrize(
    ("data", "arguments", "is_bare"),
    [
        (lambda: X, {"global_batch_size": 8}, True),
        (lambda: tf.data.Dataset.from_tensor_slices(X).batch(8), {}, True),
        (lambda: tf.data.Dataset.from_tensor_slices((X,)).batch(8), {}, False),
        (
            lambda: lambda shard: tf.data.Dataset.from_tensor_slices(X).batch(8),
            {"global_batch_size": 8},
            True,
        ),
    ],
)
@pytest.mark.parametrize("loss", [None, "mse"])
def test_x_alone_is_what_keras_gives_a_step(data, arguments, is_bare, loss, tmp_path):
    run = make_run(tmp_path / "run")
    model = build(run, Alone, loss=loss)
    run.fit(model, data(), **arguments, verbose=0)
    if not callable(data()):
        run.predict(model, data(), **arguments, verbose=0)
    for given in model.given:
        assert isinstance(given, tuple) != is_bare
        assert tf.nest.flatten(given)[0][1:] == (4,)


def test_a_train_step_of_ones_own_may_take_any_value(tmp_path):
    run = make_run(tmp_path / "run")
    x, y = X.copy(), np.full((40, 1), -1)
    x[3] = np.nan  # which is to be found out
    model = build(run, Own, loss="sparse_categorical_crossentropy")
    run.fit(model, x, y.astype("float32"), **FIT)


@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 knows no such end")
def test_an_evaluation_that_a_callback_would_end_is_refused(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = True

    alone, two = make_run(tmp_path / "alone"), make_run(tmp_path / "two", Twins())
    alone.evaluate(build(alone, keras.Model), X, Y, callbacks=[Stop()], **FIT)
    with pytest.raises(BadInput, match="takes all its batches; received stop_evaluating, from a callback"):
        two.evaluate(build(two, keras.Model), X, Y, callbacks=[Stop()], **FIT)
