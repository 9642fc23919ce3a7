"""``hpcdl train module:function`` on real ranks: a user's own model and data, and no script."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bare import environ_of_script

MODULE = """
import numpy as np
import tensorflow as tf

scale = tf.constant(2.0)  # a module may use TensorFlow when it is imported

def build():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model

def data():
    x = np.random.default_rng(0).normal(size=(170, 4))
    y = x.argmax(axis=1) % 3
    return (x[:100], y[:100]), (x[100:], y[100:])
"""


@pytest.fixture
def train(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)

    def run(*words, draws=False):
        return subprocess.run(
            [sys.executable, "-m", "hpcdl", "train", *words],
            cwd=tmp_path,
            env=environ_of_script(draws=draws),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_two_ranks_train_a_users_own_functions(train, tmp_path):
    words = ["--np", "2", "--oversubscribe", "my_module:build", "--data", "my_module:data"]
    done = train(*words, "--epochs", "2", "--learning-rate", "0.5", draws=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my_module:build on my_module:data" in done.stdout
    assert "test accuracy" in done.stdout
    (curves,) = tmp_path.glob("runs/*/curves.png")
    assert f"curves: {curves.relative_to(tmp_path)}" in done.stdout
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json"))
    assert record["title"] == "my_module:build"
    assert record["config"]["per_replica_batch_size"] == 32  # as Keras does
    assert record["config"]["epochs"] == 2
    assert record["config"]["learning_rate"] == 0.5


def test_a_function_that_does_not_exist_is_one_line_and_nothing_is_written(train, tmp_path):
    done = train("my_module:biuld", "--data", "my_module:data")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("hpcdl:") or "Traceback" in line]
    assert said == [
        "hpcdl: TARGET must name a function that exists; received 'my_module:biuld', and my_module has no 'biuld';"
        " did you mean build?"
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["my_module.py"]
