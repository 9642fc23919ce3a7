"""Every rank of a job has GPUs of its own that TensorFlow finds, or the doctor says which has not, and why."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

import pytest

from hpcdl.launch.doctor.gpus import gpu_findings
from hpcdl.launch.doctor.verdict import Finding
from tests.launch.doctor.facts import layout, met, profile, seen


def _world(
    visible: Optional[List[Dict[str, str]]] = None,
) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """Makes four ranks on two nodes of two GPUs each, all of which they see unless they are told otherwise."""
    what, how = seen(), met()
    for rank, one in enumerate(what):
        names = [f"GPU-{one['node_rank']}{gpu}" for gpu in range(2)]
        one["gpus"] = [
            {"name": "V100", "capability": "7.0", "driver": "535.1", "uuid": name} for name in names
        ]
        one["gpus_visible"] = visible[rank] if visible else {}
        how[rank]["gpus"] = 2
    return what, how


def _judged(what: Any, how: Any, replicas: int = 1) -> List[Finding]:
    asked = dataclasses.replace(layout(profile()), gpus_per_node=2, replicas_per_process=replicas)
    return [*gpu_findings(what, how, asked)]


def test_ranks_that_see_all_gpus_of_a_node_pick_one_each() -> None:
    (finding,) = _judged(*_world())
    assert (finding.check, finding.status) == ("gpus", "ok")
    assert "finds 2 or more in each rank; no two ranks share one" in finding.evidence


def test_ranks_whose_launcher_shows_each_its_own_are_well() -> None:
    what, how = _world([{"CUDA_VISIBLE_DEVICES": str(rank % 2)} for rank in range(4)])
    for one in how:
        one["gpus"] = 1
    assert [one.status for one in _judged(what, how)] == ["ok"]
    for rank, one in enumerate(what):  # by cgroups each sees one, and counts it as the first
        one["gpus_visible"] = {"CUDA_VISIBLE_DEVICES": "0"}
        one["gpus"] = [one["gpus"][rank % 2]]
    assert [one.status for one in _judged(what, how)] == ["ok"]


def test_the_variables_of_rocm_which_slurm_sets_as_well_do_not_count_for_gpus_of_nvidia() -> None:
    what, how = _world([{"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0"}] * 4)
    (finding,) = _judged(what, how)
    assert (finding.status, finding.evidence.endswith("no two ranks share one")) == ("ok", True)


def test_ranks_of_one_node_that_would_use_one_gpu_are_named() -> None:
    what, how = _world([{"CUDA_VISIBLE_DEVICES": "0"}] * 4)
    for one in how:
        one["gpus"] = 1
    (finding,) = _judged(what, how)
    assert (finding.check, finding.status) == ("gpus", "failed")
    assert finding.evidence == "ranks 0 and 1 on node1 would use one GPU, GPU-00"
    assert "gpu_bind = 'none'" in finding.cure
    assert [one.status for one in _judged(what, [])] == ["failed"]  # also without TensorFlow


@pytest.mark.parametrize(
    ("listed", "words"), [(2, "could not load"), (0, "container.gpu_flags"), (1, "container.gpu_flags")]
)
def test_a_rank_whose_tensorflow_finds_too_few_is_told_with_where_to_look(listed: int, words: str) -> None:
    what, how = _world()
    what[2]["gpus"] = what[2]["gpus"][:listed]
    how[2]["gpus"] = min(listed, 1)
    (finding,) = _judged(what, how, replicas=2)
    assert (finding.check, finding.status) == ("gpus", "failed")
    assert (
        f"rank 2 on node2 finds {min(listed, 1)} GPUs, and needs 2; nvidia-smi lists {listed}"
        in finding.evidence
    )
    assert words in finding.cure


def test_no_gpu_anywhere_is_no_health() -> None:
    what, how = _world()
    for one, other in zip(what, how):
        one["gpus"], other["gpus"] = [], 0
    assert [(one.check, one.status) for one in _judged(what, how)] == [("gpus", "failed")]


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])
@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_what_a_variable_takes_away_is_told_by_its_name(name: str, value: str) -> None:
    what, how = _world()
    for one in what:
        one["gpus"] = []  # nvidia-smi is not there, or lists none
    what[3]["gpus_visible"] = {name: value}
    how[3]["gpus"] = 0
    (finding,) = _judged(what, how)
    assert finding.evidence == f"rank 3 on node2 has {name}='{value}', and needs 1 GPUs"


def test_different_kinds_are_told_beside() -> None:
    what, how = _world()
    what[2]["gpus"][0]["name"] = "A100"
    assert [(one.check, one.status) for one in _judged(what, how)] == [
        ("gpu kinds", "warning"),
        ("gpus", "ok"),
    ]


def test_gpus_that_nobody_can_tell_apart_are_counted_only() -> None:
    what, how = _world([{"ROCR_VISIBLE_DEVICES": "0,1"}] * 4)
    for one in what:
        one["gpus"] = []
    (finding,) = _judged(what, how)
    assert (finding.status, finding.evidence.endswith("which, nobody tells")) == ("ok", True)
