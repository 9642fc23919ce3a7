"""The cases in which a run must equal plain Keras: small models, each with one thing that a wrong mean would spoil."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import tensorflow as tf

keras = tf.keras
IS_KERAS_3 = hasattr(keras, "ops")
NUM_FEATURES, NUM_CLASSES, NUM_STEPS = 6, 3, 4
GLOBAL_BATCH_SIZE, EPOCHS = 20, 2


@dataclass(frozen=True)
class Case:
    """A compiled model and how it is trained.

    Attributes:
        optimizer: Makes the optimizer.
        model: Makes the model; a dense one by default.
        num_samples: 187: an epoch's last batch has 7 samples; 181: it has 1, fewer than replicas; 183: it has 3, uneven
            on 2 replicas and too few for 4.
        loss: Further arguments of the loss.
        compile: Further arguments of compile().
        class_weight: As in Keras.
        weighted: Whether samples have weights.
        validated: Whether each epoch ends with a validation, where the case may change it.
        fit: Further arguments of Run.fit().
        equals: What the strategies must equal: ``plain`` Keras; a ``run`` in one process where Keras knows no such
            thing; or ``none``, since replicas differ by nature.
        plain_model: Makes the model of plain Keras in one process, where it is to be another one.
        metric_error: How far values of a metric may be off.
    """

    optimizer: Callable[[], Any]
    model: Optional[Callable[[], Any]] = None
    num_samples: int = 200
    loss: Dict[str, Any] = field(default_factory=dict)
    compile: Dict[str, Any] = field(default_factory=dict)
    class_weight: Optional[Dict[int, float]] = None
    weighted: bool = False
    validated: bool = False
    metric_error: float = 1e-6
    fit: Dict[str, Any] = field(default_factory=dict)
    equals: str = "plain"
    plain_model: Optional[Callable[[], Any]] = None

    def build(self, how: str) -> Any:
        model = ((self.plain_model if how == "plain" else None) or self.model or dense)()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **self.loss)
        arguments = {"loss": loss, "metrics": ["accuracy"], "jit_compile": False, **self.compile}
        if how == "plain":  # in which Keras 3 would run on from one epoch into the next
            arguments.pop("steps_per_execution", None)
        if self.model is two_outputs:
            arguments.update(
                loss={"classes": loss, "value": "mse"},
                loss_weights={"classes": 1.0, "value": 0.3},
                metrics={"classes": "accuracy", "value": "mae"},
            )
        if self.model is binary:
            arguments.update(
                loss="binary_crossentropy", metrics=None, weighted_metrics=metrics_that_are_no_means()
            )
        model.compile(self.optimizer(), **arguments)
        return model

    def data(self) -> Any:
        """Gives (x, y, weights or None) and the test data (x, y); None: the case is not validated."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.num_samples, NUM_FEATURES))
        y = (x @ rng.normal(size=(NUM_FEATURES, NUM_CLASSES))).argmax(-1)
        weights = rng.uniform(0.2, 2, self.num_samples)
        if self.model is embedding:
            x = (x > 0).astype("int32")  # few tokens: each batch has duplicates
        if self.model is masked:
            x = x[:, np.newaxis] + rng.normal(size=(self.num_samples, NUM_STEPS, NUM_FEATURES))
            lengths = rng.integers(0, NUM_STEPS + 1, self.num_samples)
            x[np.arange(NUM_STEPS) >= lengths[:, np.newaxis]] = 0
            y = rng.integers(0, NUM_CLASSES, (self.num_samples, NUM_STEPS))
        if self.model is two_outputs:
            y = {"classes": y, "value": x[:, :1] ** 2}
        if self.model is binary:
            y = (y[:, np.newaxis] == 0).astype("float64")
        data = (x, y, weights) if self.weighted else (x, y)
        test = tf.nest.map_structure(lambda a: a[50:133], data)
        return (x, y, weights if self.weighted else None), test if self.validated else None


def dense(**arguments: Any) -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    regularizer = keras.regularizers.L2(0.01)
    hidden = keras.layers.Dense(8, activation="tanh", kernel_regularizer=regularizer)(inputs)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden), **arguments)


def active() -> Any:
    """A loss of a layer's activity, which Keras divides by the batch size."""
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh", activity_regularizer=keras.regularizers.L2(0.05))(
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


def binary() -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(inputs))


def metrics_that_are_no_means() -> List[Any]:
    """Makes metrics that are worked out from states, of `binary`."""
    m = keras.metrics
    # Keras 2 has none, or one that cannot be worked out in float64.
    f1 = [m.F1Score(threshold=0.5, average="micro", name="f1")] if IS_KERAS_3 else []
    return [
        m.BinaryAccuracy(name="accuracy"),
        m.AUC(name="auc"),
        m.Precision(name="precision"),
        m.Recall(name="recall"),
        *f1,
        m.BinaryIoU([0, 1], name="iou"),
        m.MeanSquaredError(name="mse"),
    ]


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


class Tracking(OwnStep):
    """A train_step of the user's own that gives a Mean the losses of batches, and scores of samples."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="tracked")
        self.scores = keras.metrics.Mean(name="scored")

    @property
    def metrics(self) -> Any:
        return [self.tracker, self.scores]

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        self.tracker.update_state(logs["my_loss"])
        self.scores.update_state(self(data[0])[:, 0])
        return {**logs, "tracked": self.tracker.result(), "scored": self.scores.result()}

    def test_step(self, data: Any) -> Any:
        predicted = self(data[0])
        losses = keras.losses.sparse_categorical_crossentropy(data[1], predicted, from_logits=True)
        self.tracker.update_state(tf.reduce_mean(losses))
        self.scores.update_state(predicted[:, 0])
        of_batch = {"largest": tf.reduce_mean(tf.reduce_max(predicted, axis=-1))}
        return {"tracked": self.tracker.result(), "scored": self.scores.result(), **of_batch}


def tracking() -> Any:
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    return Tracking(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


def masked() -> Any:
    """A loss over the steps of series of different length; some have none."""
    inputs = keras.Input((NUM_STEPS, NUM_FEATURES))
    hidden = keras.layers.Masking()(inputs)
    hidden = keras.layers.Dense(8, activation="tanh")(hidden)
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


def normalized(**arguments: Any) -> Callable[[], Any]:
    """Makes a model with BatchNormalization of images and of rows, both far from mean 0."""

    def build() -> Any:
        inputs = keras.Input((NUM_FEATURES,))
        images = keras.layers.Reshape((NUM_FEATURES // 2, 2, 1))(inputs)
        hidden = keras.layers.Conv2D(2, 2, padding="same", bias_initializer="ones")(images)
        hidden = keras.layers.BatchNormalization(momentum=0.5, **arguments)(hidden)
        hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(hidden))
        hidden = keras.layers.BatchNormalization(momentum=0.5, axis=1, **arguments)(hidden)
        return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))

    return build


def sgd(**arguments: Any) -> Callable[[], Any]:
    return lambda: keras.optimizers.SGD(0.1, momentum=0.9, **arguments)


def adam(**arguments: Any) -> Callable[[], Any]:
    return lambda: keras.optimizers.Adam(0.01, **arguments)


def schedule() -> Any:
    rate = keras.optimizers.schedules.CosineDecay(0.2, 20)
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, clipvalue=0.01)


#: What a wrong step would spoil in one case as in two is tried in one: a compiled step is what takes the time.
CASES = {
    "sgd": Case(sgd(nesterov=True)),
    "sgd-tiny": Case(sgd(), num_samples=181),
    "adam-uneven": Case(adam(clipnorm=0.05), num_samples=187, validated=True),
    "adamw": Case(
        lambda: keras.optimizers.AdamW(
            0.01,
            weight_decay=0.1,
            global_clipnorm=0.05,
            use_ema=True,
            ema_momentum=0.8,
            ema_overwrite_frequency=3,
        ),
        num_samples=187,
    ),
    "schedule": Case(schedule, num_samples=187),
    "activity": Case(sgd(), model=active, num_samples=187, class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
    "two-outputs": Case(adam(), model=two_outputs, num_samples=187, validated=True),
    "no-gradient": Case(sgd(), model=partly),
    "tracking": Case(sgd(), model=tracking, num_samples=183, compile={"metrics": None}, validated=True),
    "eager": Case(sgd(), num_samples=187, compile={"run_eagerly": True}),
    "weighted-tiny": Case(
        sgd(),
        num_samples=181,
        weighted=True,
        compile={"weighted_metrics": ["accuracy"], "metrics": []},
        validated=True,
    ),
    "no-means": Case(sgd(), model=binary, num_samples=183, weighted=True, validated=True),
    "class-and-sample-weight": Case(adam(), weighted=True, class_weight={0: 1.0, 1: 3.0, 2: 0.5}),
    "synchronized": Case(
        sgd(),
        model=normalized(synchronized=True),
        plain_model=normalized(**({} if IS_KERAS_3 else {"fused": False})),
        num_samples=183,
        validated=True,
    ),
    "own-statistics": Case(sgd(), model=normalized(), num_samples=187, equals="none"),
    "summed": Case(adam(), num_samples=183, weighted=True, loss={"reduction": "sum"}),
    "masked": Case(adam(), model=masked, num_samples=183, validated=True),
    "several-steps": Case(adam(), num_samples=187, compile={"steps_per_execution": 4}, validated=True),
    "scaled": Case(
        sgd(nesterov=True),
        num_samples=187,
        fit={"reference_batch_size": 5, "lr_scaling": "linear", "warmup_epochs": 1},
        equals="run",
    ),
    "embedding": Case(
        adam(),
        model=embedding,
        num_samples=187,
        equals="run"
        if IS_KERAS_3
        else "plain",  # Keras 3 does not add up the rows of a word that occurs twice
    ),
}
if IS_KERAS_3:
    CASES["weighted-mean"] = Case(
        adam(), num_samples=187, weighted=True, loss={"reduction": "mean_with_sample_weight"}
    )
    CASES["ignored-class"] = Case(adam(), num_samples=187, loss={"ignore_class": 1}, validated=True)
    CASES["accumulated"] = Case(
        lambda: keras.optimizers.AdamW(
            0.01,
            weight_decay=0.1,
            global_clipnorm=0.05,
            gradient_accumulation_steps=3,
            use_ema=True,
            ema_overwrite_frequency=4,
        ),
        num_samples=181,
    )
if not IS_KERAS_3:
    legacy = keras.optimizers.legacy
    CASES["legacy-sgd"] = Case(
        lambda: legacy.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.05), num_samples=187
    )
    CASES["legacy-adam"] = Case(lambda: legacy.Adam(0.01, global_clipnorm=0.05), num_samples=187)
