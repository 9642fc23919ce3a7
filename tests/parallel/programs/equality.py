"""Trains small cases in one way and writes what came out: ``equality.py HOW CASE[,CASE...] OUT``.

HOW: ``plain`` (model.fit in one process on the whole global batch), ``run`` (hpcdl, in the world that the launcher
made) or ``wrapped`` (Horovod's own DistributedOptimizer with model.fit on each rank's share).
"""

import contextlib
import os
import sys

import numpy as np
import tensorflow as tf
from cases import CASES, EPOCHS, GLOBAL_BATCH_SIZE

import hpcdl
from hpcdl.runtime.feed import Order
from hpcdl.runtime.keras_edge import non_trainable_variables
from hpcdl.runtime.use import note_use

keras = tf.keras


def global_batches(data, order, share):
    """Makes one data set of the batches of all epochs, or of a share of each batch."""
    data = data if data[-1] is not None else data[:-1]

    def batches():
        for epoch in range(EPOCHS):
            permutation = order.permutation(epoch)
            for step in range(order.steps_per_epoch):
                rows = order.cut(permutation, step)[share]
                yield tf.nest.map_structure(lambda a, rows=rows: a[rows], data)

    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), data)
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def train_plain(model, data, test, order, class_weight=None, share=slice(None)):
    """Trains by plain Keras, in one fit, on the global batches of the order."""
    if class_weight is not None and data[-1] is not None:  # Keras takes one of them from a data set
        data, class_weight = (*data[:2], data[2] * np.vectorize(class_weight.get)(data[1])), None
    return model.fit(
        global_batches(data, order, share),
        epochs=EPOCHS,
        steps_per_epoch=order.steps_per_epoch,
        validation_data=test,
        validation_batch_size=GLOBAL_BATCH_SIZE,
        class_weight=class_weight,
        shuffle=False,
        verbose=0,
    ).history


def train_wrapped(model, data, test, order, class_weight=None):
    """Trains as Horovod's documentation says: its optimizer, and each rank its share of a batch."""
    import horovod.tensorflow.keras as hvd

    hvd.init()
    note_use(os.environ)  # a script without hpcdl on several ranks is told so
    size = GLOBAL_BATCH_SIZE // hvd.size()
    model.compile(hvd.DistributedOptimizer(model.optimizer), loss=model.loss, jit_compile=False)
    return train_plain(model, data, test, order, share=slice(hvd.rank() * size, (hvd.rank() + 1) * size))


def train_run(run, case, model, data, test):
    """Trains by hpcdl."""
    arguments = {"global_batch_size": GLOBAL_BATCH_SIZE, "epochs": EPOCHS, "class_weight": case.class_weight}
    return run.fit(model, *data, **arguments, **case.fit, validation_data=test, verbose=0).history


def averages_of_replicas(run, model):
    """Gives what layers keep by themselves, of each replica in this process: (replicas, values)."""
    copies = [run._replicas.copies(v) if run else [v] for v in non_trainable_variables(model)]
    return np.array([np.concatenate([copy.numpy().ravel() for copy in of]) for of in zip(*copies)])


def main(how, cases, out):
    keras.backend.set_floatx("float64")
    run = hpcdl.init() if how == "run" else None
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("HPCDL_RANK", "0"))
    for _ in range(int(rank)):  # names of layers are counted otherwise on each rank
        keras.layers.BatchNormalization()
    for name in cases.split(","):
        case = CASES[name]
        data, test = case.data()
        keras.utils.set_random_seed(0)
        with run.scope() if run else contextlib.nullcontext():
            model = case.build(how)
        if run is not None:
            history = train_run(run, case, model, data, test)
        else:
            train = {"plain": train_plain, "wrapped": train_wrapped}[how]
            order = Order(case.num_samples, GLOBAL_BATCH_SIZE, seed=0)
            history = train(model, data, test, order, case.class_weight)
        weights = np.concatenate([w.ravel() for w in model.get_weights()])
        averages = {} if case.equals != "none" else {"averages": averages_of_replicas(run, model)}
        np.savez(f"{out}/{name}-{rank}.npz", weights=weights, **averages, **history)


if __name__ == "__main__":
    main(*sys.argv[1:])
