"""Ends while Python reads its data, slowly: ``slow_reader.py END``.

END: ``stop`` the fit, an ``error`` in it, ``validation``: an exit in the middle of one, ``loop``: an iterator of the
script's own, or ``older``: one that is older than the run. There is no function here, since the script's names would be
part of a cycle of objects then.
"""

import sys

import tensorflow as tf

import hpcdl
from tests.parallel.slowly import End, Slow, slowly

end = sys.argv[1]
if end == "older":
    batches = iter(tf.data.Dataset.from_generator(slowly, output_signature=tf.TensorSpec(())).prefetch(2))
run = hpcdl.init()
if end == "loop":
    batches = iter(tf.data.Dataset.from_generator(slowly, output_signature=tf.TensorSpec(())).prefetch(2))
if end in ("older", "loop"):
    print(next(batches))
    sys.exit()
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
read = {"validation": {"x": Slow(10), "validation_data": Slow()}}.get(end, {"x": Slow()})
run.fit(model, shuffle=False, verbose=0, callbacks=[End(end)], **read)
