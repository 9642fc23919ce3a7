"""Prints what ``init`` has settled: ``settled.py``; with ``early``, TensorFlow is used before."""

import json
import os
import sys

import tensorflow as tf

import hpcdl
from hpcdl.runtime.bare import YIELD_WHEN_IDLE
from hpcdl.runtime.use import note_use

if "early" in sys.argv:
    tf.constant(1)
run = hpcdl.init()
note_use(os.environ)  # a script without hpcdl on several ranks is told so
settled = {
    "rank": run.rank,
    "world_size": run.world_size,
    "threads": tf.config.threading.get_intra_op_parallelism_threads(),
    "yield": os.environ.get(YIELD_WHEN_IDLE),
}
os.write(1, (json.dumps(settled) + "\n").encode())
