"""Trains, evaluates and predicts on data of all kinds: ``inputs.py OUT``.

Every rank writes one file for each kind of data; a process that is alone also what plain Keras gives on the same global
batches.
"""

import contextlib
import functools
import sys

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.runtime.feed import Order
from tests.parallel.programs.cases import binary, metrics_that_are_no_means

keras = tf.keras
NUM_FEATURES, NUM_CLASSES, NUM_SAMPLES, NUM_TEST = 6, 3, 187, 66
GLOBAL_BATCH_SIZE, EPOCHS = 20, 2
NUMS_OF_REPLICAS = (1, 2, 4)  # of all worlds: the global batches of a function depend on it
KINDS = ("dataset", "items", "function")
ALONE = ("counted", "repeating")  # how batches are counted depends on no world


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_SAMPLES + NUM_TEST, NUM_FEATURES))
    y = (x @ rng.normal(size=(NUM_FEATURES, NUM_CLASSES))).argmax(-1)
    weights = rng.uniform(0.2, 2, len(x))
    return tuple(a[:NUM_SAMPLES] for a in (x, y, weights)), tuple(a[NUM_SAMPLES:] for a in (x, y, weights))


def build():
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    outputs = keras.layers.Dense(NUM_CLASSES, activation="softmax")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy", "sparse_categorical_crossentropy"],
        jit_compile=False,
    )
    return model


def build_binary():
    """A model whose metrics are worked out from states that are no means."""
    model = binary()
    metrics = metrics_that_are_no_means()
    model.compile("sgd", loss="binary_crossentropy", weighted_metrics=metrics, jit_compile=False)
    return model


class Items(keras.utils.Sequence):
    """Global batches by number; it notes which are read, and turns round what it has after each epoch."""

    def __init__(self, arrays):
        if hasattr(keras, "ops"):
            super().__init__(workers=2)
        self.arrays, self.read, self.ended = arrays, [], 0

    def __len__(self):
        return -(-len(self.arrays[0]) // GLOBAL_BATCH_SIZE)

    def __getitem__(self, index):
        self.read.append(index)
        return tuple(a[index * GLOBAL_BATCH_SIZE : (index + 1) * GLOBAL_BATCH_SIZE] for a in self.arrays)

    def on_epoch_end(self):
        self.ended += 1
        self.arrays = tuple(a[::-1] for a in self.arrays)


def dataset(arrays):
    rows = tf.data.Dataset.from_tensor_slices(arrays)
    return rows.shuffle(50, seed=7, reshuffle_each_iteration=False).batch(GLOBAL_BATCH_SIZE)


def of_shard(arrays, index, count, size):
    """Every count-th sample, in an order that the seed gives."""
    rows = tf.data.Dataset.from_tensor_slices(arrays).shard(count, index)
    return rows.shuffle(50, seed=index, reshuffle_each_iteration=False).batch(size)


def function(arrays):
    return lambda shard: of_shard(arrays, shard.index, shard.count, shard.per_replica_batch_size)


def together(arrays, count):
    """The global batches that the shards make together."""
    shards = [of_shard(arrays, k, count, GLOBAL_BATCH_SIZE // count) for k in range(count)]
    join = lambda *parts: tf.nest.map_structure(lambda *t: tf.concat(t, 0), *parts)  # noqa: E731
    return tf.data.Dataset.zip(tuple(shards)).map(join)


def inputs_of_run(kind, arrays):
    """Gives what is passed to Run.fit, and further arguments."""
    if kind == "dataset":
        return dataset(arrays), {}
    if kind == "counted":  # a generator does not say how many batches it gives; rows have no known number
        made = dataset(arrays)
        return tf.data.Dataset.from_generator(lambda: iter(made), output_signature=made.element_spec), {}
    if kind == "repeating":
        return dataset(arrays).repeat(), {"steps_per_epoch": 7}
    if kind == "function":
        return function(arrays), {"global_batch_size": GLOBAL_BATCH_SIZE}
    return Items(arrays), {}


def batches_of_plain(kind, arrays, count):
    """Lists the global batches of all epochs."""
    if kind == "dataset":
        return [*dataset(arrays)] * EPOCHS
    if kind == "repeating":
        return [*dataset(arrays).repeat().take(7 * EPOCHS)]
    if kind == "function":
        return [*together(arrays, count)] * EPOCHS
    items, batches = Items(arrays), []
    order = Order(len(items), 1, seed=0)
    for epoch in range(EPOCHS):
        batches += [items[k] for k in order.permutation(epoch)]
        items.on_epoch_end()
    return [tf.nest.map_structure(tf.constant, batch) for batch in batches]


def train_plain(kind, model, train, test, count):
    batches = batches_of_plain(kind, train, count)
    spec = tf.nest.map_structure(lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), batches[0])
    return model.fit(
        tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec),
        epochs=EPOCHS,
        steps_per_epoch=len(batches) // EPOCHS,
        validation_data=dataset(test),
        shuffle=False,
        verbose=0,
    ).history


def train_run(run, kind, model, train, test):
    x, arguments = inputs_of_run(kind, train)
    validation = {"items": Items(test), "function": function(test)}.get(kind, dataset(test))
    arguments = {"epochs": EPOCHS, "validation_data": validation, "verbose": 0, **arguments}
    history = run.fit(model, x, **arguments).history
    return history, x.read if isinstance(x, Items) else [], getattr(x, "ended", 0)


def evaluate(run, out):
    """Evaluates on arrays, where the metrics are most, and predicts on data of all kinds, also several outputs."""
    (x, y, weights), _ = data()
    x, y, weights = x[:83], (y[:83, np.newaxis] == 0).astype("float64"), weights[:83]
    keras.utils.set_random_seed(1)
    with run.scope() if run else contextlib.nullcontext():
        model = build_binary()
        twice = keras.layers.Rescaling(2.0)(model.output)
        of_two = keras.Model(model.input, {"once": model.output, "twice": twice})
    alone = {"batch_size": GLOBAL_BATCH_SIZE, "verbose": 0}
    all_replicas = {"global_batch_size": GLOBAL_BATCH_SIZE, "verbose": 0}
    if run is None:
        results = {
            "arrays": model.evaluate(x, y, sample_weight=weights, **alone),
            "predicted": model.predict(x, **alone),
        }
    else:
        rows = tf.data.Dataset.from_tensor_slices((x,)).batch(41)
        predicted = {
            "of-dataset": run.predict(model, rows, verbose=0),
            "of-items": run.predict(model, Items((x,)), verbose=0),
            "of-arrays": run.predict(model, x, **all_replicas),
        }
        of_outputs = run.predict(of_two, x, **all_replicas)
        results = {"arrays": run.evaluate(model, x, y, weights, **all_replicas)}
        if run.rank == 0:
            results.update(predicted, **of_outputs)
        else:
            assert {*predicted.values(), of_outputs} == {None}
    np.savez(out, **results)


def fit(run, kind, out, count):
    """Trains on one kind of data, by plain Keras where there is no run, and writes what came out."""
    train, test = data()
    keras.utils.set_random_seed(0)
    with run.scope() if run else contextlib.nullcontext():
        model = build()
    noted = {}
    if run:
        history, read, ended = train_run(run, kind, model, train, test)
        noted = {"read": read, "ended": ended}
    else:
        history = train_plain(kind, model, train, test, count)
    if kind in ("dataset", "counted"):  # one batch, smaller than the others, so of unequal parts
        few = dataset(tuple(array[:7] for array in train))
        evaluate_few = functools.partial(run.evaluate, model) if run else model.evaluate
        values = evaluate_few(few, verbose=0, return_dict=True)
        noted.update({f"few-{name}": value for name, value in values.items()})
    weights = np.concatenate([w.ravel() for w in model.get_weights()])
    np.savez(out, weights=weights, **noted, **history)


def main(out):
    keras.backend.set_floatx("float64")
    run = hpcdl.init()
    for kind in KINDS + ALONE * (run.num_replicas == 1):
        fit(run, kind, f"{out}/{kind}-{run.rank}.npz", run.num_replicas)
    evaluate(run, f"{out}/evaluated-{run.rank}.npz")
    if run.num_replicas == 1:
        for kind in KINDS + ALONE[1:]:  # the first has the batches of a data set
            for count in NUMS_OF_REPLICAS if kind == "function" else NUMS_OF_REPLICAS[:1]:
                fit(None, kind, f"{out}/plain-{kind}-{count}.npz", count)
        evaluate(None, f"{out}/plain-evaluated.npz")


if __name__ == "__main__":
    main(*sys.argv[1:])
