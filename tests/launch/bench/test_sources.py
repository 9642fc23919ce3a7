"""What a report is made of: a file that is no whole record of sums is refused in one line."""

from __future__ import annotations

import errno
import json
import os

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.bench.sources import read_sources

WHOLE = {
    "schema_version": 1,
    "kind": "allreduce",
    "num_ranks": 2,
    "seconds": {"horovod": {"1024": [1e-4]}, "mpi": {"1024": [1e-5]}},
}


def write(path, **changes):
    record = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("path", "says"), [("theirs/study", "nobody may look: Permission"), (".", "neither a")]
)
def test_a_folder_into_which_nobody_may_look_is_one_line(tmp_path, monkeypatch, path, says):
    def denied(path, *args, **kwargs):
        if "theirs" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **kwargs)

    stat = os.stat
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(BadInput, match=says) as refused:
        read_sources([tmp_path / path])
    assert "\n" not in str(refused.value)


def test_a_whole_record_is_read(tmp_path):
    assert read_sources([write(tmp_path / "sums.json")]).sums == (WHOLE,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seconds": None}, "seconds cannot be read"),
        ({"seconds": []}, "seconds cannot be read"),
        ({"seconds": {"horovod": {"1024": [1e-4]}, "mpi": {}}}, "seconds cannot be read"),
        ({"seconds": {"horovod": {}, "mpi": {}}}, "seconds cannot be read"),
        ({"seconds": {"horovod": {"1024": []}, "mpi": {"1024": [1e-5]}}}, "seconds cannot be read"),
        ({"num_ranks": None}, "num_ranks cannot be read"),
        ({"num_ranks": "2"}, "num_ranks cannot be read"),
        ({"seconds": {"horovod": {"1024": ["1e-4"]}, "mpi": {"1024": [1e-5]}}}, "seconds cannot be read"),
        ({"seconds": {"horovod": {"1024": [0]}, "mpi": {"1024": [1e-5]}}}, "seconds cannot be read"),
        (
            {"seconds": {"horovod": {"1024": [1e-4]}, "mpi": {"1024": [float("inf")]}}},
            "seconds cannot be read",
        ),
        ({"schema_version": 99}, "of schema 99"),
        ({"kind": "study"}, "of kind 'study'"),
    ],
)
def test_a_record_that_is_not_whole_is_refused_in_one_line(tmp_path, changes, says):
    with pytest.raises(BadInput, match=says) as refused:
        read_sources([write(tmp_path / "sums.json", **changes)])
    assert "\n" not in str(refused.value)
