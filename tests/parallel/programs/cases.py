"""The cases in which a run must equal plain Keras: small models, each with one thing that a wrong mean would spoil."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

import numpy as np
import tensorflow as tf

keras = tf.keras
IS_KERAS_3 = hasattr(keras, "ops")
NUM_FEATURES, NUM_CLASSES, GLOBAL_BATCH_SIZE, EPOCHS = 6, 3, 20, 2


@dataclass(frozen=True)
class Case:
    """A compiled model and how it is trained.

    Attributes:
        optimizer: Makes the optimizer.
        model: Makes the model; a dense one by default.
        num_samples: 187: an epoch's last batch has 7 samples; 181: it has 1, fewer than replicas.
        compile: Further arguments of compile().
        class_weight: As in Keras.
        weighted: Whether samples have weights.
        fit: Further arguments of Run.fit().
        equals: What the strategies must equal: ``plain`` Keras, or a ``run`` in one process where Keras knows no such
            thing.
        metric_error: How far values of a metric may be off.
    """

    optimizer: Callable[[], Any]
    model: Optional[Callable[[], Any]] = None
    num_samples: int = 200
    compile: Dict[str, Any] = field(default_factory=dict)
    class_weight: Optional[Dict[int, float]] = None
    weighted: bool = False
    metric_error: float = 1e-6
    fit: Dict[str, Any] = field(default_factory=dict)
    equals: str = "plain"

    def build(self) -> Any:
        model = (self.model or dense)()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        arguments = {"loss": loss, "metrics": ["accuracy"], "jit_compile": False, **self.compile}
        if self.model is two_outputs:
            arguments.update(
                loss={"classes": loss, "value": "mse"},
                loss_weights={"classes": 1.0, "value": 0.3},
                metrics={"classes": "accuracy", "value": "mae"},
            )
        model.compile(self.optimizer(), **arguments)
        return model

    def data(self) -> Any:
        """Gives (x, y, weights or None) and the test data (x, y)."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.num_samples, NUM_FEATURES))
        y = (x @ rng.normal(size=(NUM_FEATURES, NUM_CLASSES))).argmax(-1)
        weights = rng.uniform(0.2, 2, self.num_samples)
        if self.model is embedding:
            x = (x > 0).astype("int32")  # few tokens: each batch has duplicates
        if self.model is two_outputs:
            y = {"classes": y, "value": x[:, :1] ** 2}
        test = x[50:133], tf.nest.map_structure(lambda a: a[50:133], y)
        return (x, y, weights if self.weighted else None), test


def dense(**arguments: Any) -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    regularizer = keras.regularizers.L2(0.01)
    hidden = keras.layers.Dense(8, activation="tanh", kernel_regularizer=regularizer)(inputs)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden), **arguments)


def active() -> Any:
    """A loss of a layer's activity, which Keras divides by the batch size."""
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh", activity_regularizer=keras.regularizers.L1(0.05))(
        inputs
    )
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


def embedding() -> Any:
    """Sparse gradients with duplicate rows, which Keras 3 does not add up as it does dense ones."""
    inputs = keras.Input((NUM_FEATURES,), dtype="int32")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(2, 4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


def two_outputs() -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    classes = keras.layers.Dense(NUM_CLASSES, name="classes")(hidden)
    return keras.Model(inputs, {"classes": classes, "value": keras.layers.Dense(1, name="value")(hidden)})


class Partly(keras.Model):
    """A model with a layer that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.out = keras.layers.Dense(NUM_CLASSES)
        self.idle = keras.layers.Dense(2)

    def build(self, input_shape: Any) -> None:
        self.hidden.build((None, NUM_FEATURES))
        self.out.build((None, 8))
        self.idle.build((None, 8))
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> Any:
        return self.out(self.hidden(inputs))


def partly() -> Any:
    model = Partly()
    model.build((None, NUM_FEATURES))
    return model


class OwnStep(keras.Model):
    """A train_step of the user's own, with a loss that it reduces by itself and a log that is no metric."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, predicted, from_logits=True)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {"my_loss": loss}


def own_step() -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    return OwnStep(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


def sgd(**arguments: Any) -> Callable[[], Any]:
    return lambda: keras.optimizers.SGD(0.1, momentum=0.9, **arguments)


def adam(**arguments: Any) -> Callable[[], Any]:
    return lambda: keras.optimizers.Adam(0.01, **arguments)


def schedule() -> Any:
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.2, 20), momentum=0.9, nesterov=True)


CASES = {
    "sgd": Case(sgd(nesterov=True)),
    "adam": Case(adam()),
    "adam-uneven": Case(adam(), num_samples=187),
    "sgd-tiny": Case(sgd(), num_samples=181),
    "adamw": Case(lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), num_samples=187),
    "clipnorm": Case(sgd(clipnorm=0.05), num_samples=187),
    "global-clipnorm": Case(adam(global_clipnorm=0.05), num_samples=187),
    "clipvalue": Case(sgd(clipvalue=0.01), num_samples=187),
    "ema": Case(adam(use_ema=True, ema_momentum=0.8), num_samples=187),
    "schedule": Case(schedule, num_samples=187),
    "activity": Case(sgd(), model=active, num_samples=187),
    "two-outputs": Case(adam(), model=two_outputs, num_samples=187),
    "no-gradient": Case(sgd(), model=partly),
    "own-step": Case(sgd(), model=own_step, num_samples=187, compile={"metrics": None}),
    "eager": Case(sgd(), num_samples=187, compile={"run_eagerly": True}),
    "weighted": Case(
        sgd(), num_samples=187, weighted=True, compile={"weighted_metrics": ["accuracy"], "metrics": []}
    ),
    "weighted-tiny": Case(sgd(), num_samples=181, weighted=True),
    "class-weight": Case(sgd(), num_samples=187, class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
    "class-and-sample-weight": Case(adam(), weighted=True, class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
}
_SCALED = {"reference_batch_size": 5, "lr_scaling": "linear", "warmup_epochs": 1}
CASES["scaled-sgd"] = Case(sgd(nesterov=True), num_samples=187, fit=_SCALED, equals="run")
CASES["scaled-adam"] = Case(adam(), num_samples=187, fit=_SCALED, equals="run")
CASES["embedding"] = Case(adam(), model=embedding, num_samples=187, equals="run")
if not IS_KERAS_3:
    legacy = keras.optimizers.legacy
    CASES["legacy-sgd"] = Case(
        lambda: legacy.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.05), num_samples=187
    )
    CASES["legacy-adam"] = Case(lambda: legacy.Adam(0.01, global_clipnorm=0.05), num_samples=187)
