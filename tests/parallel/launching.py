"""Starts the programs of these tests as users start their scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.bare import environ_of_script
from tests.parallel.programs.cases import IS_KERAS_3

IS_OLDEST = tf.__version__.startswith("2.12.")
NEWEST_ONLY = pytest.mark.skipif(not IS_KERAS_3, reason="tried under Keras 3; it depends on no Keras")
WHERE_HOROVOD_DRIFTS = pytest.mark.skipif(
    not IS_KERAS_3, reason="under Keras 2 Horovod's own optimizer averages in model.fit"
)
ONE_OF_KERAS_2 = pytest.mark.skipif(IS_OLDEST, reason="tried in the newer TensorFlow with Keras 2")
#: Each world of two replicas or more, by its number of ranks and of replicas in each.
WORLDS_OF_TWO = pytest.mark.parametrize(
    ("num_ranks", "replicas"), [(2, 2)] if IS_OLDEST else [(1, 2), (2, 1), (2, 2)]
)
#: Programs whose coverage is measured, on two ranks: what they do between them. What a process does alone, and with
#: several replicas, is measured where tests need no launcher.
MEASURED = ("callbacks.py", "perturbed.py", "survives.py", "world.py")
PROGRAMS = Path(__file__).parent / "programs"
#: Of one launch: those of many replicas take minutes where ranks share their cores with other tests.
LONGEST_S = 1200


def run_program(folder, name, *args, np=1, replicas=1, launcher="mpi", status=0, options=(), environ=()):
    """Starts a program in a folder on np ranks, and waits until it has ended with a status."""
    is_measured = name in MEASURED and (np, replicas, launcher) == (2, 1, "mpi")
    variables = {**environ_of_script(is_measured), "HPCDL_CHECKPOINT_EVERY": "never", **dict(environ)}
    world = [
        "--np",
        str(np),
        "--launcher",
        launcher,
        "--replicas-per-process",
        str(replicas),
        "--oversubscribe",
    ]
    command = [
        sys.executable,
        "-m",
        "hpcdl",
        "train",
        *world,
        *options,
        str(PROGRAMS / name),
        *map(str, args),
    ]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=LONGEST_S, cwd=str(folder)
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def run_hpcdl(words, folder, timeout_s=LONGEST_S):
    """Runs a command of hpcdl's in a folder, which must succeed, and gives what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcdl", *words],
        cwd=str(folder),
        env=environ_of_script(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
