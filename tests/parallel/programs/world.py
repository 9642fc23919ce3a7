"""What ranks do together outside of `run.fit`, each value noted: ``world.py OUT``."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import hpcdl
from hpcdl.common.errors import HpcdlError

keras = tf.keras
NUM_ROWS = 21  # which neither 2 nor 4 replicas divide


def numbers(tensors):
    return [None if t is None else np.asarray(t).tolist() for t in tensors]


def on_replicas(run, step, is_graph):
    """Lists what a step gives on each replica of this process; the step gets the global number of its replica."""

    def numbered():
        return step(
            run.rank * run.replicas_per_process + tf.distribute.get_replica_context().replica_id_in_sync_group
        )

    call = tf.function(run.distribution.run) if is_graph else run.distribution.run
    given = call(numbered)
    return [numbers([run.distribution.experimental_local_results(t)[0] for t in given if t is not None])]


def averaged(run, weigh):
    def step(number):
        value = tf.cast(number + 1, tf.float32)
        rows = tf.IndexedSlices(tf.stack([[value], [value]]), tf.constant([1, 1]), tf.constant([3, 1]))
        bad = tf.where(number == 0, np.nan, value) if weigh else value
        gradients = [tf.stack([value, 2 * value]), None, rows, bad]
        means = run.average_gradients(gradients, weight=number if weigh else None)
        assert means[1] is None
        return means

    return [on_replicas(run, step, is_graph) for is_graph in (False, True)]


def build():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh", kernel_initializer=keras.initializers.GlorotNormal(1))(
        inputs
    )
    return keras.Model(
        inputs, keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotNormal(2))(hidden)
    )


def loop(run):
    """Takes five steps on whole batches, each replica on its rows of them; without a run, plain Keras on all."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, NUM_ROWS, 4)), rng.normal(size=(5, NUM_ROWS, 1))
    model, optimizer = build(), keras.optimizers.Adam(0.1, global_clipnorm=0.1)
    number, of = (None, 1) if run is None else (run.rank * run.replicas_per_process, run.num_replicas)

    def step(x, y):
        if run is not None:
            first = number + tf.distribute.get_replica_context().replica_id_in_sync_group
            x, y = x[first::of], y[first::of]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        if run is None:
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
            return
        gradients = run.average_gradients(gradients, weight=tf.shape(x)[0])
        run.apply_gradients(optimizer, zip(gradients, model.trainable_variables))

    if run is not None:
        run.broadcast(model.variables)
    distribution = tf.distribute.get_strategy() if run is None else run.distribution
    in_graph = tf.function(lambda x, y: distribution.run(step, args=(x, y)))
    (distribution.run(step, args=(x[0], y[0])))  # eagerly
    for batch in zip(x[1:], y[1:]):
        in_graph(*map(tf.constant, batch))
    return model, optimizer, np.concatenate([np.ravel(w) for w in model.get_weights()])


def broadcast(run):
    """Gives what variables of all kinds hold after a broadcast."""
    with run.scope():
        variables = [
            tf.Variable(tf.cast(run.rank + 5, dtype)) for dtype in (tf.float32, tf.int64, tf.uint32, tf.bool)
        ]
        variables += [tf.Variable([[run.rank + 0.5]] * 3)]
        if hasattr(keras, "ops"):
            variables += [keras.Variable(run.rank + 7.0)]
    run.broadcast(variables)
    return numbers(
        getattr(v, "value", v) if hasattr(keras, "ops") and isinstance(v, keras.Variable) else v
        for v in variables
    )


def refusal(call):
    try:
        call()
    except HpcdlError as error:
        return [type(error).__name__, str(error)]
    return None


def main(out):
    run = hpcdl.init()
    keras.backend.set_floatx("float64")
    out = Path(out)
    run.print("said by rank", run.rank, sep=" = ")
    if run.is_rank_0:
        time.sleep(1.0)
        (out / "before").touch()
    run.barrier()
    was_there = (out / "before").exists()
    samples = tf.data.Dataset.range(2 * 5 + 1)
    shards = [run.shard(d) for d in (samples, samples.filter(lambda x: True), samples.repeat())]

    *_, plain = loop(None)
    with run.scope():
        model, optimizer, own = loop(run)
    if not run.is_rank_0:
        model.set_weights([0 * w for w in model.get_weights()])
    run.save(model, out / "new" / "model.keras")
    (out / f"file-{run.rank}").touch()  # in which all shall fail to make a folder
    noted = {
        "was there": was_there,
        "shards": [[int(x) for x in shard.take(6)] for shard in shards],
        "means": averaged(run, weigh=False),
        "weighted": averaged(run, weigh=True),
        "broadcast": broadcast(run),
        "error": float(np.abs(own - plain).max()),
        # What the script does with its optimizer afterwards is no longer hpcdl's.
        "is plain": type(optimizer) is keras.optimizers.Adam
        and "_all_reduce_sum_gradients" not in vars(optimizer),
        "moved": float(np.abs(plain).max()),
        "saved": (out / "new" / "model.keras").is_file(),
        "no ending": refusal(lambda: run.save(model, out / "model.h5")),
        "no folder": refusal(lambda: run.save(model, out / "file-0" / "model.keras")),
        "outside": refusal(lambda: run.average_gradients([tf.constant(1.0)])),
    }
    (out / f"rank-{run.rank}.json").write_text(json.dumps(noted))


if __name__ == "__main__":
    main(*sys.argv[1:])
