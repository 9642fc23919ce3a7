"""Facts are gathered from commands that answer, that fail, and that are not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict, Sequence

import pytest

import hpcdl
from hpcdl.common.errors import BadInput
from hpcdl.launch.doctor.gather import gather_host, gather_inside
from hpcdl.launch.submission.lib import write_lib
from tests.launch.doctor.facts import profile

ANSWERS: Dict[str, str] = {
    "sbatch": "slurm-wlm 22.05.8\n",
    "scontrol": "PartitionName=batch MaxTime=60 Default=YES\nPartitionName=short MaxTime=2\n",
    "srun": "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n",
    "apptainer": "apptainer version 1.4.5\n",
}


def _ask(argv: Sequence[str]) -> str:
    if argv[0] not in ANSWERS:
        raise BadInput(f"{argv[0]} is not there")
    return ANSWERS[argv[0]]


def test_what_a_login_node_tells(tmp_path: Path) -> None:
    environ = {"SLURM_CPU_BIND": "x", "SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "x", "HOME": "/h"}
    here = {"sbatch", "apptainer", "squashfuse_ll"}
    facts = gather_host(
        profile(),
        str(tmp_path / "none.sif"),
        "abc",
        [str(tmp_path / "jobs")],
        environ,
        ask=_ask,
        which=lambda name: f"/usr/bin/{name}" if name in here else None,
    )
    assert (facts.slurm_version, facts.partitions) == ("22.05.8", ("batch", "short"))
    assert set(facts.mpi_types) == {"none", "pmi2", "pmix", "pmix_v4"}
    assert (facts.container_version, facts.container_mounts) == (
        "apptainer version 1.4.5",
        ("squashfuse_ll",),
    )
    assert facts.image_problem == "it is not there"
    assert facts.inherited == ("SLURM_CPU_BIND",)
    (place,) = facts.places
    assert (place.problem, place.free_gb > 0) == (None, True)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to ...", "mpirun (Open MPI) 4.1.4"),
        (
            "HYDRA build details:\n    Version:    4.0.2\n    Release Date:  Thu Apr  7",
            "mpirun (MPICH) 4.0.2",
        ),
        ("Some(R) MPI, Version 2021.5\nCopyright", "Some(R) MPI, Version 2021.5"),
    ],
)
def test_mpirun_is_looked_for_after_the_sites_setup_as_a_job_would_find_it(
    says: str, expected: str, tmp_path: Path
) -> None:
    program = tmp_path / "mpirun"
    program.write_text(f"#!/bin/sh\ncat << END\n{says}\nEND\n")
    program.chmod(0o755)
    loud = "echo 'Loading mpi (Open MPI) 9.9'; printf 'gcc 12.1 is now loaded'"
    for setup, found in ((f"PATH={tmp_path}:$PATH; {loud}", expected), ("PATH=/nowhere", None)):
        facts = gather_host(profile(setup=[setup]), None, None, [], {}, with_mpirun=True)
        assert facts.mpirun == found


def test_a_machine_without_slurm_and_a_slurm_that_does_not_answer_are_told_apart() -> None:
    nothing = gather_host(profile(), None, None, [], {}, ask=_ask, which=lambda name: None)
    assert (nothing.slurm_version, nothing.slurm_problem) == (None, "no sbatch here")

    def silent(argv: Sequence[str]) -> str:
        raise BadInput("no controller")

    deaf = gather_host(profile(), None, None, [], {}, ask=silent, which=lambda name: "/usr/bin/" + name)
    assert (deaf.slurm_version, deaf.slurm_problem) == (None, "no controller")


def test_a_python_that_does_not_start_gives_what_it_said(tmp_path: Path) -> None:
    facts = gather_inside([], ["no-such-python"], [], tmp_path, [], {"PATH": "/usr/bin:/bin"})
    assert list(facts) == ["error"]
    assert "no-such-python" in facts["error"]


def test_a_python_that_starts_tells_what_it_holds_after_the_sites_setup(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    write_lib(Path(hpcdl.__file__).resolve().parent, lib)
    bare = [sys.executable, "-S", "-E"]  # without any package
    setup = [f"cd {tmp_path}", "export CUDA_VISIBLE_DEVICES=5"]
    facts = gather_inside([], bare, setup, lib, [str(tmp_path)], {"PATH": "/usr/bin:/bin"})
    assert facts["around"]["folders"] == {str(tmp_path): None}
    assert facts["around"]["gpus_visible"] == {"CUDA_VISIBLE_DEVICES": "5"}
    assert facts["python"]["version"].startswith("3.")
    assert (facts["tensorflow"], facts["horovod"], facts["mpi"]) == (None, None, None)
    quick = gather_inside([], bare, setup, lib, [], {"PATH": "/usr/bin:/bin"}, quick=True)
    assert {"around", "python", "keras"} <= set(quick)
    assert "tensorflow" not in quick
