"""In one process neither Horovod nor MPI is loaded, whatever the strategy: they may not even be there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bare import environ_of_script

SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf
import hpcdl
run = hpcdl.init(strategy=sys.argv[1], replicas=int(sys.argv[2]))
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
run.fit(model, np.zeros((8, 4)), np.zeros((8, 1)), global_batch_size=4, verbose=0)
maps = open("/proc/self/maps").read()
print(json.dumps({
    "strategy": run.strategy,
    "modules": [name for name in ("horovod", "mpi4py", "hpcdl.launch") if name in sys.modules],
    "libraries": [name for name in ("libmpi", "libhorovod", "mpi_lib") if name in maps],
}))
"""


@pytest.mark.parametrize(("strategy", "replicas"), [("single", 1), ("mirrored", 2)])
def test_one_process_trains_without_horovod_and_mpi(strategy, replicas, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, strategy, str(replicas)],
        cwd=tmp_path,
        env=environ_of_script(is_measured=True),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"strategy": strategy, "modules": [], "libraries": []}
