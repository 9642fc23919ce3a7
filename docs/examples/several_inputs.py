"""A model of two inputs and two outputs, which are named: what garment, and how much of it is seen.

python docs/examples/several_inputs.py
hpcdl train --np 2 docs/examples/several_inputs.py
"""

import argparse

import numpy as np
import tensorflow as tf

import hpcdl

parser = argparse.ArgumentParser(description="Recognize clothes of which a random part is hidden")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=60_000)
arguments = parser.parse_args()

run = hpcdl.init()
(x_train, y_train), (x_test, y_test) = hpcdl.load_data("fashion_mnist")


def inputs_and_targets(images, classes):
    """Hides the lower rows of images: the model gets what is left, and which rows they are."""
    rng = np.random.default_rng(0)  # the same on all ranks: each of them takes its share of the whole
    shown = (np.arange(28) < rng.integers(8, 29, (len(images), 1))).astype("float32")
    x = {"image": images.astype("float32") / 255 * shown[:, :, np.newaxis], "rows": shown}
    return x, {"garment": classes, "seen": shown.mean(axis=1, keepdims=True)}


x, y = inputs_and_targets(x_train[: arguments.samples], y_train[: arguments.samples])
validation = inputs_and_targets(x_test, y_test)

with run.scope():
    image, rows = tf.keras.Input((28, 28), name="image"), tf.keras.Input((28,), name="rows")
    joined = tf.keras.layers.Concatenate()([tf.keras.layers.Flatten()(image), rows])
    hidden = tf.keras.layers.Dense(128, activation="relu")(joined)
    garment = tf.keras.layers.Dense(10, activation="softmax", name="garment")(hidden)
    seen = tf.keras.layers.Dense(1, name="seen")(hidden)
    model = tf.keras.Model({"image": image, "rows": rows}, {"garment": garment, "seen": seen})
    model.compile(
        tf.keras.optimizers.Adam(1e-3),
        loss={"garment": "sparse_categorical_crossentropy", "seen": "mse"},
        loss_weights={"garment": 1.0, "seen": 0.5},
        metrics={"garment": "accuracy", "seen": "mae"},
    )
history = run.fit(
    model, x, y, per_replica_batch_size=64, epochs=arguments.epochs, validation_data=validation
).history

last = {name: values[-1] for name, values in history.items()}
run.print(f"{run.num_replicas} replica(s): seen part off by {last['val_seen_mae']:.3f} on average")
run.print(f"test accuracy {100 * last['val_garment_accuracy']:.2f} %")
