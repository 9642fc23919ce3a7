"""What differs between ranks or replicas, and must not, stops the run; what one rank meets is told by itself."""

from __future__ import annotations

import re

import pytest

from tests.parallel.launching import NEWEST_ONLY, WHERE_HOROVOD_DRIFTS, run_program
from tests.parallel.programs.cases import IS_KERAS_3


@WHERE_HOROVOD_DRIFTS
def test_the_guard_sees_ranks_that_horovods_own_optimizer_let_drift(tmp_path):
    done = run_program(tmp_path, "wrapped_guard.py", np=2, status=1)
    assert "all ranks must hold the same variables; after 10 steps" in done.stderr


@pytest.mark.parametrize(
    ("what", "when"), [("weight", r"after step 100 \S+ of"), ("average", r"after epoch 1 \S+ of")]
)
def test_what_is_changed_on_one_rank_stops_the_run(what, when, tmp_path):
    done = run_program(tmp_path, "perturbed.py", what, np=2, status=1)
    assert re.search(f"all ranks must hold the same variables; {when} rank\\(s\\) 1", done.stderr)


def test_what_is_changed_on_one_replica_of_a_process_stops_the_run(tmp_path):
    done = run_program(tmp_path, "perturbed.py", "copy", replicas=2, status=1)
    assert re.search(r"after step 100 \S+ of rank\(s\) 0, replica\(s\) 1, differs", done.stderr)
    # The same run says what it takes as a mean of the samples.
    assert done.stderr.count("one number for a whole batch is taken as the mean") == 1
    assert "add_loss() of summed, the loss function; a sum there" in done.stderr
    assert "replicas draw alike" not in done.stdout
    assert ("replicas draw numbers of their own" in done.stdout) == IS_KERAS_3


@NEWEST_ONLY
def test_ranks_that_would_save_at_other_steps_are_stopped_before_one_waits_for_the_other(tmp_path):
    done = run_program(
        tmp_path, "perturbed.py", "interval", np=2, status=2, environ={"HPCDL_CHECKPOINT_EVERY": ""}
    )
    assert "rank 1 differs from rank 0 in checkpoint_every" in done.stderr


@NEWEST_ONLY
def test_what_rank_0_alone_meets_is_told_by_itself_with_its_traceback(tmp_path):
    done = run_program(tmp_path, "perturbed.py", "error", np=2, status=1)
    assert "rank 0 on " in done.stderr
    assert "in look\n" in done.stderr
    assert "TypeError: " in done.stderr
    assert "rank 0 failed: TypeError" not in done.stderr
