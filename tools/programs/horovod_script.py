"""A minimal Horovod script, written by hand as in Horovod's own example for TensorFlow 2, for comparison.

Its pattern (init, pin, tape, broadcast after the first step) and its input pipeline are those of
examples/tensorflow2/tensorflow2_mnist.py of Horovod 0.28.1. Network and data are hpcdl's workload. Under Keras 3 the
tape gets the TensorFlow variables behind Keras' own, without which Horovod's tape raises.

Synopsis::

    HPCDL_BENCH_STEPS=95 mpirun -np 2 python tools/programs/horovod_script.py RUN_DIR fashion_mnist/cnn_dropout
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, List

import horovod.tensorflow as hvd
import tensorflow as tf

from hpcdl.common.bench import BenchSettings
from hpcdl.common.records import write_json
from hpcdl.common.step_times import StepLog
from hpcdl.runtime import workloads
from hpcdl.runtime.record import peak_bytes

BATCH_SIZE = 128


def main(run_dir: str, name: str) -> None:
    """Trains and writes."""
    steps = BenchSettings.from_environ(os.environ).steps
    assert steps is not None
    hvd.init()
    gpus = tf.config.experimental.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        tf.config.experimental.set_visible_devices(gpus[hvd.local_rank()], "GPU")

    workload = workloads.get(name)
    arrays = workload.arrays(workload.load(), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((arrays.x_train, arrays.y_train))
    dataset = dataset.repeat().shuffle(10000).batch(BATCH_SIZE)

    model = workload.build()
    loss_function = tf.losses.SparseCategoricalCrossentropy()
    optimizer = tf.optimizers.Adam(0.001 * hvd.size())
    variables = [v if isinstance(v, tf.Variable) else v.value for v in model.trainable_variables]

    @tf.function  # type: ignore[untyped-decorator]
    def training_step(images: Any, labels: Any, first_batch: bool) -> Any:
        with tf.GradientTape() as tape:
            loss_value = loss_function(labels, model(images, training=True))
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(loss_value, variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        if first_batch:
            hvd.broadcast_variables(variables, root_rank=0)
            of_optimizer = optimizer.variables
            of_optimizer = of_optimizer() if callable(of_optimizer) else of_optimizer
            hvd.broadcast_variables(
                [v if isinstance(v, tf.Variable) else v.value for v in of_optimizer], root_rank=0
            )
        return loss_value

    ends: List[float] = [time.perf_counter()]
    for batch, (images, labels) in enumerate(dataset.take(steps)):
        training_step(images, labels, batch == 0)
        ends.append(time.perf_counter())
    if len({float(c) for c in hvd.allgather(tf.stack([tf.reduce_sum(variables[0])])).numpy()}) > 1:
        raise SystemExit("the ranks' weights differ: this script does not train what it seems to")
    log = StepLog(Path(run_dir), hvd.rank(), socket.gethostname())
    log.append(0, [end - begin for begin, end in zip(ends, ends[1:])])
    most = int(hvd.allgather(tf.constant(peak_bytes()[:1])).numpy().max())
    if hvd.rank() == 0:
        write_json(Path(run_dir).resolve() / "run.json", {"memory": {"host_peak_bytes": most}})


if __name__ == "__main__":
    main(*sys.argv[1:])
