"""Keras 2 under a TensorFlow of Keras 3 (``TF_USE_LEGACY_KERAS=1``, package tf_keras) trains as exactly, all day."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest

from tests.parallel.launching import run_program
from tests.parallel.programs.cases import IS_KERAS_3

#: What differs between the generations of Keras: how an optimizer and a layer are called, who averages.
CASES = ["adam-uneven", "legacy-adam", "several-steps", "synchronized"]
pytestmark = pytest.mark.skipif(
    not IS_KERAS_3 or find_spec("tf_keras") is None, reason="tf_keras is not here"
)


LEGACY = {"TF_USE_LEGACY_KERAS": "1"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {how: tmp_path_factory.mktemp(how) for how in ("plain", "run")}
    for how, world in (("plain", {}), ("run", {"np": 2, "replicas": 2, "launcher": "gloo"})):
        run_program(made[how], "equality.py", how, ",".join(CASES), made[how], environ=LEGACY, **world)
    return made


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_of_two_replicas_equal_one_process_on_the_whole_batch(case, folders):
    expected = np.load(folders["plain"] / f"{case}-0.npz")
    for rank in range(2):
        found = np.load(folders["run"] / f"{case}-{rank}.npz")
        assert set(found.files) == set(expected.files)
        assert np.abs(found["weights"] - expected["weights"]).max() <= 1e-12
        for name in expected.files:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6, rtol=0, err_msg=name)


def test_a_workload_with_callbacks_is_killed_goes_on_and_is_saved(tmp_path):
    environ = {**LEGACY, "HPCDL_CHECKPOINT_EVERY": "2steps"}
    done = run_program(tmp_path, "everyday.py", tmp_path, np=2, options=["--restarts", "1"], environ=environ)
    assert "was killed by SIGKILL" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(r["epoch"], r["step"]) for r in record["resumed"]] == [(1, 1)]
    assert record["status"] == "done"
    assert record["versions"]["keras"].startswith("2.")
    broken, whole = (
        [np.load(tmp_path / f"rank-{rank}-{how}.npz") for rank in range(2)] for how in ("broken", "whole")
    )
    for found in (*broken, *whole):
        assert len(found["val_loss"]) == 2  # EarlyStopping ended it
        for name in whole[0].files:
            np.testing.assert_array_equal(found[name], whole[0][name], err_msg=name)
    assert broken[0]["off"] == 0
    written = {path.name for path in tmp_path.glob("rank-*") if path.suffix != ".npz"}
    assert written == {"rank-0.csv", "rank-0-each.keras"}
