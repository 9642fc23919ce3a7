"""Scripts under a bare mpirun, with real ranks and Horovod: no ``hpcdl train`` around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bare import environ_of_script, needs_mpirun, under_mpirun

PROGRAMS = Path(__file__).parent / "programs"


@needs_mpirun
def test_a_call_that_one_rank_refuses_is_one_line_and_no_rank_waits_for_it(tmp_path):
    ended = under_mpirun(tmp_path, [str(PROGRAMS / "refused.py"), "1"])
    assert ended.status == 2
    (line,) = (said for said in ended.said if "batch size" in said)
    assert line.startswith("hpcdl: a batch size must say of what; received batch_size=4;")
    assert "Traceback" not in "".join(ended.said)
    assert ended.seconds < 120


@needs_mpirun
def test_unbound_ranks_share_the_cores_and_rank_0_says_what_that_costs(tmp_path):
    ended = under_mpirun(tmp_path, [str(PROGRAMS / "settled.py")], options=["--bind-to", "none"])
    assert ended.status == 0
    ranks = sorted((json.loads(line) for line in ended.out.splitlines()), key=lambda rank: rank["rank"])
    num_cpus = len(os.sched_getaffinity(0))
    assert [rank["rank"] for rank in ranks] == [0, 1]
    assert all(1 <= rank["threads"] <= max(1, num_cpus // 2) for rank in ranks)
    assert all(rank["yield"] == "1" for rank in ranks)
    sharing, waiting = ended.said
    assert sharing.startswith("hpcdl: 2 ranks on ")
    assert "OMPI_MCA_mpi_yield_when_idle=1" in waiting


@needs_mpirun
def test_a_rank_that_has_used_tensorflow_before_init_is_refused(tmp_path):
    ended = under_mpirun(tmp_path, [str(PROGRAMS / "settled.py"), "early"])
    assert ended.status == 2
    (line,) = ended.said
    assert "call hpcdl.init() before any tensor or model is made" in line


@needs_mpirun
@pytest.mark.parametrize("train", ["", "model.fit(x, y, verbose=0); run.evaluate(model, x, y, verbose=0)"])
def test_ranks_that_trained_each_by_itself_are_told_the_three_lines(train, tmp_path):
    script = f"""
import numpy as np, tensorflow as tf, hpcdl
run = hpcdl.init()
x, y = np.zeros((8, 4)), np.zeros((8, 1))
with run.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=False)
{train}
"""
    (tmp_path / "m.py").write_text(script)
    ended = under_mpirun(tmp_path, ["m.py"])
    assert ended.status == 2
    (line,) = (said for said in ended.said if "must train through" in said)
    assert "received m.py, which ended without" in line
    assert ended.seconds < 120


@needs_mpirun
def test_ranks_that_no_variable_of_mpirun_reaches_do_not_train_alone(tmp_path):
    script = "import os, runpy, sys; keep = {k: os.environ[k] for k in ('PATH', 'PYTHONPATH')};"
    script += "os.execve(sys.executable, [sys.executable, *sys.argv[1:]], keep)"
    ended = under_mpirun(tmp_path, ["-c", script, str(PROGRAMS / "settled.py")])
    # One is refused, and mpirun ends the other, which may have looked when the first had gone.
    assert ended.status == 2
    assert ended.said
    assert all(
        "started 2 processes here, and this one received none of its variables" in s for s in ended.said
    )


def test_a_rank_that_has_nowhere_to_meet_the_others_does_not_train_alone(tmp_path):
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    environ = {**environ_of_script(), **{f"HPCDL_{name}": value for name, value in place.items()}}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "settled.py")],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "received 2 of them and no HPCDL_RENDEZVOUS_DIR" in done.stderr


@needs_mpirun
def test_ranks_that_disagree_stop_at_once_and_the_difference_is_named(tmp_path):
    ended = under_mpirun(tmp_path, [str(PROGRAMS / "disagreeing.py")])
    assert ended.status == 2
    (line,) = (said for said in ended.said if "all ranks" in said)
    assert line.startswith("hpcdl: all ranks must start alike; rank 1 differs from rank 0 in model ")
    assert "rate (0.6, not 0.5)" in line
    assert ended.seconds < 120
