"""Each fault turns just the right check red (or yellow), with a cure; a healthy cluster is all green."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from hpcdl.common.provenance import without_secrets
from hpcdl.launch.doctor.host import Place, check_host, check_submission
from hpcdl.launch.doctor.image import check_image, ways_of
from hpcdl.launch.doctor.nodes import check_nodes
from hpcdl.launch.doctor.quota import Quota
from hpcdl.launch.doctor.verdict import Finding, is_ill, render
from tests.launch.doctor.facts import HOST, inside, layout, met, profile, seen

IMAGE = "/images/hpcdl-cpu.sif"


def _bad(findings: List[Finding]) -> List[Tuple[str, str]]:
    for one in findings:
        assert (one.cure == "") == (one.status == "ok"), one
    return [(one.check, one.status) for one in findings if one.status != "ok"]


def test_a_healthy_cluster_is_all_green() -> None:
    site = profile()
    for launcher in ("gloo", "mpi"):
        planned = layout(site, launcher)
        assert _bad(check_host(HOST, site, planned.partition, launcher)) == []
        assert _bad(check_image(inside(), site, planned, IMAGE)) == []
        assert _bad(check_nodes(seen(), met(), site, planned, {"state": "done"})) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"slurm_version": None}, ("slurm", "failed")),
        ({"slurm_version": "24.11.1"}, ("slurm", "warning")),
        ({"partitions": ("GPU", "short")}, ("partition", "failed")),
        ({"account": None}, ("account", "failed")),
        ({"mpi_types": ("none", "pmi2")}, ("mpi type", "failed")),
        ({"container_version": None}, ("container", "failed")),
        ({"container_mounts": ()}, ("container", "warning")),
        ({"image_problem": "it is not there"}, ("image", "failed")),
        ({"places": (Place("/w", "Permission denied", 9.0, None),)}, ("folder", "failed")),
        ({"places": (Place("/w", None, 0.5, None),)}, ("folder", "warning")),
        ({"places": (Place("/w", None, 99.0, 12),)}, ("folder", "warning")),
        ({"places": (Place("/w", None, 99.0, None, Quota(9.0, 10.0, 7, None)),)}, ("folder", "warning")),
        ({"places": (Place("/w", None, 99.0, None, Quota(9.0, 99.0, 90, 90)),)}, ("folder", "failed")),
        ({"places": (Place("/h", None, 99.0, None, Quota(26.0, 25.0, 7, None), True),)}, ("home", "warning")),
        ({"inherited": ("SLURM_CPU_BIND_LIST",)}, ("inherited", "failed")),
        ({"inherited": ("SLURM_NTASKS",)}, ("inherited", "warning")),
    ],
)
def test_a_fault_of_the_host_turns_its_own_check(changes: Dict[str, Any], expected: Tuple[str, str]) -> None:
    site = profile()
    facts = dataclasses.replace(HOST, **changes)
    assert _bad(check_host(facts, site, "batch", "mpi")) == [expected]


@pytest.mark.parametrize(("is_refused", "status"), [(False, "ok"), (True, "failed"), (None, "warning")])
def test_what_slurm_says_to_a_job_is_judged(is_refused: Optional[bool], status: str) -> None:
    finding = check_submission("in its words", is_refused)
    assert (finding.check, finding.status, finding.evidence) == ("submission", status, "in its words")
    assert (finding.cure == "") == (status == "ok")


def test_inside_a_job_its_variables_are_its_own() -> None:
    site = profile()
    facts = dataclasses.replace(HOST, inherited=("SLURM_CPU_BIND",), job_id="7")
    assert _bad(check_host(facts, site, "batch", "gloo")) == []


def test_ranks_that_mpirun_starts_need_one_of_the_kind_that_the_image_has() -> None:
    site, planned = profile(), layout(profile(), "mpirun")
    assert _bad(check_host(HOST, site, "batch", "mpirun")) == [("mpirun", "failed")]
    found = check_host(dataclasses.replace(HOST, mpirun="mpirun (Open MPI) 5.0.1"), site, "batch", "mpirun")
    assert _bad(found) == []
    for said, expected in (
        ("mpirun (Open MPI) 5.0.1", []),
        ("mpirun (Open MPI) 4.1.4", [("mpirun", "warning")]),
        ("HYDRA build details: Version: 4.1", [("mpirun", "failed")]),
    ):
        assert _bad(check_image(inside(), site, planned, IMAGE, said)) == expected


def test_without_an_image_no_container_is_asked_for() -> None:
    site = profile()
    facts = dataclasses.replace(HOST, image=None, container_version=None, container_mounts=())
    assert _bad(check_host(facts, site, "batch", "gloo")) == []


Spoil = Callable[[Dict[str, Any]], Any]


def _old_tensorflow(facts: Dict[str, Any]) -> None:
    facts["tensorflow"].update(version="2.9.1")
    facts["horovod"].update(tensorflow="2.9.1")


def _foreign_mpi(facts: Dict[str, Any]) -> None:
    facts["mpi"].update(library="/host/lib/libmpi.so.40")
    facts.update(library_path=["/host/lib"])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda f: f["python"].update(version="3.6.8"), ("python", "failed")),
        (lambda f: f.update(tensorflow={"error": "ImportError: libcuda.so.1"}), ("tensorflow", "failed")),
        (_old_tensorflow, ("tensorflow", "warning")),
        (lambda f: f.update(keras=None), ("keras", "failed")),
        (lambda f: f.update(keras={"version": "3.9.2"}), ("keras", "failed")),
        (lambda f: f.update(horovod=None, mpi=None), ("horovod", "failed")),
        (lambda f: f["horovod"].update(tensorflow="2.15.1"), ("horovod", "failed")),
        (lambda f: f["horovod"].update(error="undefined symbol"), ("horovod", "failed")),
        (lambda f: f["horovod"].update(gloo=False), ("horovod", "failed")),
        (_foreign_mpi, ("mpi library", "failed")),
        (lambda f: f.update(strangers=["/home/me/.local/lib/python3.11/site-packages"]), ("strangers", "warning")),
        (lambda f: f["around"]["folders"].update({"/ocean/x": "it is not there"}), ("folder", "failed")),
    ],
)  # fmt: skip
def test_a_fault_of_the_image_turns_its_own_check(spoil: Spoil, expected: Tuple[str, str]) -> None:
    site, facts = profile(), inside()
    spoil(facts)
    assert _bad(check_image(facts, site, layout(site), IMAGE)) == [expected]


def test_how_the_horovod_of_an_image_can_meet_is_told_where_it_loads() -> None:
    facts = inside()
    assert ways_of(facts) == ["gloo", "mpi"]
    facts["horovod"].update(gloo=False)
    assert ways_of(facts) == ["mpi"]
    assert ways_of({**facts, "horovod": {"error": "signal 11"}}) is None
    assert ways_of({}) is None


def test_what_a_quick_look_leaves_out_is_not_judged() -> None:
    site, facts = profile(), inside()
    for name in ("tensorflow", "horovod", "mpi"):
        del facts[name]
    found = check_image(facts, site, layout(site, gpus="2"), IMAGE)
    assert [(one.check, one.status) for one in found] == [
        ("python", "ok"),
        ("strangers", "ok"),
        ("folder", "ok"),
    ]


def test_an_image_that_does_not_start_is_one_finding_with_what_it_said() -> None:
    site = profile()
    (finding,) = check_image({"error": "exit status 255: no such image"}, site, layout(site), IMAGE)
    assert (finding.check, finding.status) == ("start", "failed")
    assert "no such image" in finding.evidence


@pytest.mark.parametrize(
    ("version", "mpi", "expected"),
    [
        ("Open MPI v5.0.11", "pmi2", ("pmi", "failed")),
        ("Open MPI v4.1.5", "cray_shasta", ("pmi", "failed")),
        ("MPICH Version: 3.4.2", "pmix_v3", ("pmi", "warning")),
        ("MPICH Version: 3.4.2", "pmi2", None),
        ("MPICH Version: 3.4.2", "cray_shasta", None),
        ("Open MPI v4.1.5", "pmix_v4", None),
    ],
)
def test_pairs_of_mpi_and_pmi_that_do_not_meet_are_named(version: str, mpi: str, expected: Any) -> None:
    site, facts = profile(mpi=mpi), inside()
    facts["mpi"]["version"] = version
    found = _bad(check_image(facts, site, layout(site, "mpi"), IMAGE))
    assert found == ([expected] if expected else [])


def test_gpus_need_an_image_with_cuda_nccl_and_a_driver_that_is_new_enough() -> None:
    site, facts = profile(), inside()
    planned = layout(site, gpus="2")
    assert _bad(check_image(facts, site, planned, IMAGE)) == [("horovod", "warning"), ("gpu", "failed")]
    facts["horovod"].update(nccl=True, cuda=True)
    facts["tensorflow"].update(cuda="12.2", gpu_code=["sm_60", "sm_70", "compute_80"])
    gpu = {"name": "V100", "capability": "7.0", "driver": "470.57.02"}
    facts["around"]["gpus"] = [gpu]
    assert _bad(check_image(facts, site, planned, IMAGE)) == [("driver", "failed")]
    facts["around"]["cuda_compat"] = True
    assert _bad(check_image(facts, site, planned, IMAGE)) == [("driver", "warning")]
    gpu["driver"] = "535.104.05"
    assert _bad(check_image(facts, site, planned, IMAGE)) == []
    gpu["driver"] = "[N/A]"
    assert _bad(check_image(facts, site, planned, IMAGE)) == []
    gpu["capability"] = "9.0"  # only by what is compiled at start
    assert _bad(check_image(facts, site, planned, IMAGE)) == [("gpu code", "warning")]
    gpu["capability"] = "3.7"
    assert _bad(check_image(facts, site, planned, IMAGE)) == [("gpu code", "failed")]
    facts["tensorflow"]["gpu_code"] = []  # nobody knows
    assert _bad(check_image(facts, site, planned, IMAGE)) == []


def test_what_the_flags_for_gpus_spoil_is_told_from_what_is_broken_anyway() -> None:
    site, facts = profile(), inside()
    facts.update(tensorflow={"error": "ImportError: GLIBC_2.38 not found"}, gpu_flags=["--nv"])
    facts["without_gpu_flags"] = {"version": "2.15.1", "cuda": "12.2"}
    (finding,) = [one for one in check_image(facts, site, layout(site), IMAGE) if one.status != "ok"]
    assert "without --nv it loads" in finding.evidence
    facts["without_gpu_flags"] = {"error": "ImportError"}
    (finding,) = [one for one in check_image(facts, site, layout(site), IMAGE) if one.status != "ok"]
    assert "without --nv" not in finding.evidence


SpoilRanks = Callable[[List[Dict[str, Any]], List[Dict[str, Any]]], Any]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda s, m: s.pop(3), [("ranks", "failed")]),
        (lambda s, m: [one.update(hostname="node1", cpus="0-7") for one in s], [("ranks", "failed")]),
        (lambda s, m: [one.update(cpus="0-1") for one in s], [("cores", "failed")]),
        (lambda s, m: s[1]["threads"].update(OMP_NUM_THREADS="8"), [("threads", "warning")]),
        (lambda s, m: s[2].update(cores=1), [("cores", "failed")]),
        (lambda s, m: s[2].update(memlock_kb=64), [("locked memory", "failed")]),
        (lambda s, m: s[2].update(memlock_kb=None), []),
        (lambda s, m: s[0].update(shm_mb=64), [("shared memory", "warning")]),
        (lambda s, m: m[3].update(clocks=[t + 5 for t in m[3]["clocks"]]), [("clocks", "warning")]),
        (
            lambda s, m: m[3].update(clocks=[m[3]["clocks"][0] + 5, m[3]["clocks"][1]]),
            [],
        ),  # it left one barrier late
        (lambda s, m: s[3]["folders"].update({"/w": "Read-only file system"}), [("folder", "failed")]),
        (lambda s, m: m.pop(), [("horovod", "failed")]),
        (lambda s, m: [one.update(size=1, sum=1.0) for one in m], [("horovod", "failed")]),
        (
            lambda s, m: s[0].update(fabrics=["mlx5_0"]) or m[1].update(seconds=9.0),
            [("bandwidth", "warning")],
        ),
    ],
)
def test_a_fault_of_the_nodes_turns_its_own_check(spoil: SpoilRanks, expected: List[Tuple[str, str]]) -> None:
    site, what, how = profile(), seen(), met()
    spoil(what, how)
    assert _bad(check_nodes(what, how, site, layout(site), {"words": "rank 3 failed"})) == expected


def test_ranks_that_take_long_to_start_at_once_and_clocks_of_a_quick_look_are_told() -> None:
    site, what = profile(), seen()
    assert _bad(check_nodes(what, [], site, layout(site), {"started": what[0]["time"] - 3}, quick=True)) == []
    what[3]["time"] += 99
    state = {"started": what[0]["time"] - 3}
    assert _bad(check_nodes(what, [], site, layout(site), state, quick=True)) == [
        ("starts", "warning"),
        ("clocks", "warning"),
    ]


def test_nobody_started_says_what_the_keeper_said() -> None:
    site = profile()
    (finding,) = check_nodes([], [], site, layout(site), {"words": "rank 0 on node1: exit status 255"})
    assert "0 of 4 ranks started" in finding.evidence
    assert "exit status 255" in finding.evidence


def test_findings_are_written_by_place_with_evidence_and_cure() -> None:
    findings = [
        Finding("slurm", "host", "ok", "Slurm 22.05.8"),
        Finding("horovod", "image", "failed", "Horovod is missing", "take another image"),
    ]
    assert render(findings) == [
        "host:",
        "  ok       slurm          Slurm 22.05.8",
        "image:",
        "  failed   horovod        Horovod is missing",
        "                          cure: take another image",
        "1 ok, 0 warning, 1 failed",
    ]
    assert is_ill(findings)
    assert not is_ill(findings[:1])


@pytest.mark.parametrize(
    "secret",
    [
        "WANDB_API_KEY=abcd1234",
        "my_token: abcd1234",
        "https://me:abcd1234@host/x",
        "hf_abcd1234abcd1234abcd1234",
        "SLURM_JWT=abcd1234",
        "eyJabcd1234.eyJabcd1234.abcd1234",
        '"MY_TOKEN": "abcd1234"',
        """'password' = 'it is abcd1234'""",
        r'{"said": "{\"MY_TOKEN\": \"it is abcd1234\"}"}',
        r'{"said": "MY_TOKEN=\"it is abcd1234\""}',
        r'"MY_TOKEN": "a \" in it abcd1234"',
    ],
)
def test_a_report_holds_no_secrets(secret: str) -> None:
    text = without_secrets(f"before {secret} after")
    assert "abcd1234" not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
