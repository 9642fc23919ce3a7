"""Training on files that no memory has to hold: each replica reads its own ones, through tf.data.

python docs/examples/files.py
hpcdl train --np 2 docs/examples/files.py
"""

import argparse
from pathlib import Path

import tensorflow as tf

import hpcdl

parser = argparse.ArgumentParser(description="Train on Fashion-MNIST from TFRecord files")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=60_000)
parser.add_argument("--folder", type=Path, default=Path("fashion-mnist-files"))
arguments = parser.parse_args()
NUM_FILES = 8  # as many for each replica: a multiple of their number

run = hpcdl.init()
(x_train, y_train), (x_test, y_test) = hpcdl.load_data("fashion_mnist")


def write_files(images, classes):
    """Makes the files, which in real life are there."""
    arguments.folder.mkdir(exist_ok=True)
    for i in range(NUM_FILES):
        with tf.io.TFRecordWriter(str(arguments.folder / f"part-{i}.tfrecord")) as file:
            for image, number in zip(images[i::NUM_FILES], classes[i::NUM_FILES]):
                file.write(bytes([number]) + image.tobytes())


def sample(record):
    """Gives image and class of a record."""
    values = tf.io.decode_raw(record, tf.uint8)
    return tf.cast(tf.reshape(values[1:], (28, 28)), tf.float32) / 255, values[0]


def data(shard):
    """Gives the batches of one replica: its files, each record of them in a new order in each epoch."""
    files = tf.data.Dataset.list_files(str(arguments.folder / "*.tfrecord"), shuffle=False)
    samples = tf.data.TFRecordDataset(files.shard(shard.count, shard.index)).map(sample)
    return samples.shuffle(5000, seed=shard.seed).batch(shard.per_replica_batch_size, drop_remainder=True)


if run.is_rank_0:
    write_files(x_train[: arguments.samples], y_train[: arguments.samples])
run.barrier()  # nobody reads before they are there

with run.scope():
    layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(64, activation="relu")]
    layers += [tf.keras.layers.Dense(64, activation="relu"), tf.keras.layers.Dense(10, activation="softmax")]
    model = tf.keras.Sequential([tf.keras.Input((28, 28)), *layers])
    model.compile(
        tf.keras.optimizers.RMSprop(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
history = run.fit(
    model,
    data,
    per_replica_batch_size=64,
    epochs=arguments.epochs,
    validation_data=(x_test.astype("float32") / 255, y_test),
    lr_scaling="linear",
).history
run.print(f"{run.num_replicas} replica(s): test accuracy {100 * history['val_accuracy'][-1]:.2f} %")
