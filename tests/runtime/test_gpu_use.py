"""How busy the GPUs were, by what nvidia-smi prints: here a script in its place."""

from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.records import read_json
from hpcdl.runtime import fitting, gpu_use
from hpcdl.runtime.gpu_use import GpuUse, mean_percent
from tests.runtime.runs import make_run

_SCRIPT = """#!/bin/sh
echo "$@" > "$(dirname "$0")/words"
echo $$ > "$(dirname "$0")/process"
printf '90\\n70\\n[N/A]\\n80\\n'
touch "$(dirname "$0")/has-said"
exec sleep 300
"""


@pytest.fixture
def environ(tmp_path, monkeypatch):
    """Gives an environment with an nvidia-smi, and TensorFlow two GPUs to see."""
    (tmp_path / "nvidia-smi").write_text(_SCRIPT)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    return {"PATH": os.environ["PATH"]}


def watch(use, folder):
    use.on_train_batch_end(0)
    end = time.monotonic() + 30
    while not (folder / "has-said").exists() and time.monotonic() < end:
        time.sleep(0.01)
    use.on_train_batch_end(1)  # looks no second time
    use.close()
    return use.percent


def test_the_mean_over_gpus_and_time_is_given_and_the_watch_has_ended(environ, tmp_path):
    assert watch(GpuUse(0, environ), tmp_path) == 80
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)


@pytest.mark.parametrize(
    ("visible", "named"), [(None, False), ("2,3", True), ("GPU-8f3c", True)], ids=["all", "numbers", "UUID"]
)
def test_it_looks_at_the_gpus_of_the_job(visible, named, environ, tmp_path):
    if visible is not None:
        environ["CUDA_VISIBLE_DEVICES"] = visible
    watch(GpuUse(0, environ), tmp_path)
    words = (tmp_path / "words").read_text().split()
    assert "--query-gpu=utilization.gpu" in words
    assert (f"--id={visible}" in words) is named


def test_a_run_that_is_no_benchmark_is_looked_at_later_and_less_often(environ, tmp_path):
    use = GpuUse(0, environ, every_s=30, after_s=3600)
    for batch in range(3):
        use.on_train_batch_end(batch)
    use.close()
    assert math.isnan(use.percent)
    assert not (tmp_path / "words").exists()
    watch(GpuUse(0, environ, every_s=30, after_s=0), tmp_path)
    assert "--loop=30" in (tmp_path / "words").read_text().split()


def test_training_goes_on_where_nvidia_smi_does_not_start(environ, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/nowhere\n")
    use = GpuUse(0, environ)
    use.on_train_batch_end(0)
    use.on_train_batch_end(1)
    use.close()
    assert math.isnan(use.percent)


def test_a_watch_that_does_not_end_holds_nobody_up(environ, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_use, "_END_S", 0.2)
    (tmp_path / "nvidia-smi").write_text(_SCRIPT.replace("printf", "trap '' TERM\nprintf"))
    assert math.isnan(watch(GpuUse(0, environ), tmp_path))


def test_a_run_that_is_no_benchmark_has_it_in_its_record(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(_SCRIPT)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr(gpu_use, "_argv", lambda environ, every_s: [str(tmp_path / "nvidia-smi")])
    monkeypatch.setattr(fitting, "_LOOK_S", 0)
    run = make_run(tmp_path / "run")
    with run.scope():
        model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False)

    class Waits(tf.keras.callbacks.Callback):
        """Until the script has said something."""

        def on_epoch_end(self, epoch, logs=None):
            end = time.monotonic() + 30
            while not (tmp_path / "has-said").exists() and time.monotonic() < end:
                time.sleep(0.01)

    x = np.zeros((20, 4), "float32")
    run.fit(model, x, x[:, :1], global_batch_size=10, epochs=1, verbose=0, callbacks=Waits())
    assert read_json(tmp_path / "run" / "run.json")["gpu_use_percent"] == 80


@pytest.mark.parametrize("change", ["another rank of the node", "no GPU", "hidden", "no nvidia-smi"])
def test_else_nobody_looks(change, environ, tmp_path, monkeypatch):
    if change == "no GPU":
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    environ.update(
        {"hidden": {"CUDA_VISIBLE_DEVICES": ""}, "no nvidia-smi": {"PATH": "/nowhere"}}.get(change, {})
    )
    use = GpuUse(1 if change == "another rank of the node" else 0, environ)
    use.on_train_batch_end(0)
    use.close()
    assert math.isnan(use.percent)
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("said", ["", "[N/A]\n", "No devices were found\n"])
def test_without_a_number_nothing_is_known(said):
    assert math.isnan(mean_percent(said))
