"""A plain Keras script made distributed by three changed lines, on the whole Fashion-MNIST.

Run it alone, or on several ranks:

    python docs/examples/three_lines.py
    hpcdl train --np 2 docs/examples/three_lines.py
    mpirun -np 2 python docs/examples/three_lines.py
"""

import argparse

import tensorflow as tf

import hpcdl
from hpcdl.runtime import workloads

parser = argparse.ArgumentParser(description="Train Keras' classic small CNN on Fashion-MNIST")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--samples", type=int, default=60_000)
arguments = parser.parse_args()

run = hpcdl.init(run_dir="runs/three-lines")  # 1: where am I; Horovod up where there are several ranks
workload = workloads.get("fashion_mnist/cnn_dropout")
data = workload.arrays(workload.load(), tf.keras.backend.floatx())
with run.scope():  # 2
    model = workload.build()
history = run.fit(  # 3: instead of model.fit
    model,
    data.x_train[: arguments.samples],
    data.y_train[: arguments.samples],
    per_replica_batch_size=128,
    epochs=arguments.epochs,
    validation_data=(data.x_test, data.y_test),
    lr_scaling="linear",
    warmup_epochs=1,
)
if run.is_rank_0:
    accuracy = history.history["val_accuracy"][-1]
    print(
        f"{run.world_size} rank(s): test accuracy {100 * accuracy:.2f} %, {run.samples_per_second:.0f} samples/s"
    )
