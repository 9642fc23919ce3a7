"""How busy the GPUs were, by what nvidia-smi prints: here a script in its place."""

from __future__ import annotations

import math
import os
import time

import pytest
import tensorflow as tf

from hpcdl.runtime.gpu_use import GpuUse, mean_percent

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
