"""A loop of one's own, without `fit`: gradients averaged over all replicas, samples divided among the ranks.

python docs/examples/custom_loop.py
hpcdl train --np 2 docs/examples/custom_loop.py
hpcdl train --np 2 --replicas-per-process 2 --oversubscribe docs/examples/custom_loop.py
"""

import argparse

import tensorflow as tf

import hpcdl

parser = argparse.ArgumentParser(description="Train two dense layers on Fashion-MNIST, step by step")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=60_000)
arguments = parser.parse_args()

run = hpcdl.init()
(x_train, y_train), (x_test, y_test) = hpcdl.load_data("fashion_mnist")
x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255
samples = tf.data.Dataset.from_tensor_slices((x_train, y_train)).take(arguments.samples)
# Each rank has its part; a batch is for all replicas of a process, and divided among them.
batches = run.shard(samples).shuffle(10_000).batch(128 * run.replicas_per_process)
batches = run.distribution.experimental_distribute_dataset(batches)

with run.scope():
    layers = [
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(64, "relu"),
        tf.keras.layers.Dense(10, "softmax"),
    ]
    model = tf.keras.Sequential([tf.keras.Input((28, 28)), *layers])
    optimizer = tf.keras.optimizers.Adam(0.001)
    optimizer.build(model.trainable_variables)  # no variable may be made within a step
run.broadcast(model.variables)
loss_of = tf.keras.losses.SparseCategoricalCrossentropy(reduction="none")


def step(x, y):
    """Takes one step on this replica's samples; every replica takes it at the same time."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loss_of(y, model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    # The loss rides in the same exchange. Replicas weigh as much as they have samples.
    *gradients, loss = run.average_gradients([*gradients, loss], weight=tf.shape(y)[0])
    run.apply_gradients(optimizer, zip(gradients, model.trainable_variables))
    return loss


@tf.function
def step_on_all(x, y):
    losses = run.distribution.run(step, args=(x, y))
    return run.distribution.experimental_local_results(losses)[0]  # the mean, the same on each


for epoch in range(arguments.epochs):
    mean = tf.keras.metrics.Mean()
    for x, y in batches:
        mean.update_state(step_on_all(x, y))
    run.print(f"epoch {epoch + 1}: loss {mean.result():.4f}")

run.save(model, "custom-loop.keras")
if run.is_rank_0:
    plain = tf.keras.models.load_model("custom-loop.keras")  # as a script without hpcdl does
    found = plain.predict(x_test, verbose=0).argmax(axis=1)
    accuracy = (found == y_test).mean()
    print(f"{run.num_replicas} replica(s): test accuracy {100 * accuracy:.2f} %")
