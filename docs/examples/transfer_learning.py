"""Transfer learning: first the new head on frozen layers, then all layers with a small learning rate; two fits.

python docs/examples/transfer_learning.py
hpcdl train --np 2 docs/examples/transfer_learning.py
"""

import argparse

import tensorflow as tf

import hpcdl

parser = argparse.ArgumentParser(description="Teach a network of five kinds of clothes the other five")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=30_000)
arguments = parser.parse_args()

run = hpcdl.init()
train, test = hpcdl.load_data("fashion_mnist")
settings = {"per_replica_batch_size": 64, "epochs": arguments.epochs}


def part(x, y, first):
    """Gives the samples of five classes, numbered from 0."""
    is_in = (y >= first) & (y < first + 5)
    return x[is_in][: arguments.samples].astype("float32") / 255, y[is_in][: arguments.samples] - first


def compiled(model, learning_rate):
    model.compile(
        tf.keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


old, new, test = part(*train, 0), part(*train, 5), part(*test, 5)

with run.scope():
    inputs = tf.keras.Input((28, 28))
    features = tf.keras.layers.Dense(64, activation="relu")(tf.keras.layers.Flatten()(inputs))
    base = tf.keras.Model(inputs, features)
    model = compiled(tf.keras.Model(inputs, tf.keras.layers.Dense(5, "softmax")(features)), 1e-3)
run.fit(
    model, *old, **settings
)  # its folder is runs/transfer_learning-<digest>; those of later fits lie in it

with run.scope():
    base.trainable = False
    model = compiled(tf.keras.Model(inputs, tf.keras.layers.Dense(5, "softmax")(base(inputs))), 1e-3)
run.fit(model, *new, **settings)

with run.scope():
    base.trainable = True
    compiled(model, 1e-4)  # what is trainable counts from the next compile() on
history = run.fit(model, *new, validation_data=test, **settings).history

run.print(f"{run.num_replicas} replica(s): test accuracy {100 * history['val_accuracy'][-1]:.2f} %")
run.save(model, "transfer-learning.keras")
