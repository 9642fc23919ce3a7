"""A plain Keras script made distributed by three changed lines, on the whole Fashion-MNIST.

Run it alone, or on several ranks:

    python docs/examples/three_lines.py
    hpcdl train --np 2 docs/examples/three_lines.py
    mpirun -np 2 python docs/examples/three_lines.py
"""

import argparse

import tensorflow as tf

import hpcdl

parser = argparse.ArgumentParser(description="Train Keras' classic small CNN on Fashion-MNIST")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=60_000)
arguments = parser.parse_args()


def build():
    """Makes and compiles a model as any Keras script does, with a plain Keras optimizer."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        tf.keras.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


run = hpcdl.init()  # 1: where am I; Horovod up where there are several ranks
# What tf.keras.datasets.fashion_mnist.load_data() gives, also where there is no network.
(x_train, y_train), (x_test, y_test) = hpcdl.load_data("fashion_mnist")
with run.scope():  # 2
    model = build()
history = run.fit(  # 3: instead of model.fit
    model,
    x_train[: arguments.samples].astype("float32") / 255,
    y_train[: arguments.samples],
    per_replica_batch_size=128,
    epochs=arguments.epochs,
    validation_data=(x_test.astype("float32") / 255, y_test),
    lr_scaling="linear",
    warmup_epochs=1,
)
if run.is_rank_0:
    accuracy = history.history["val_accuracy"][-1]
    print(
        f"{run.world_size} rank(s): test accuracy {100 * accuracy:.2f} %, {run.samples_per_second:.0f} samples/s"
    )
