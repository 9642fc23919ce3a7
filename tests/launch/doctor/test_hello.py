"""Two ranks say hello by each of srun's ways to start MPI: what is asked, and what is made of the answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from hpcdl.launch.doctor.hello import candidates, check_hellos, hello_lines, read_hello
from tests.launch.doctor.facts import layout, profile

ROOT = Path(__file__).resolve().parents[3]
FAKE_SRUN = """#!/bin/sh
case "$*" in
  *--mpi=pmix*) echo; echo "hello 1 of 2"; echo "hello 0 of 2";;
  *--mpi=pmi2*) echo "hello 0 of 1"; echo "hello 0 of 1";;
  *) echo "srun: error: no such plugin"; exit 1;;
esac
"""


def test_one_name_for_each_family_and_pmix_first() -> None:
    assert candidates(["none", "cray_shasta", "pmi2", "pmix", "pmix_v4"]) == ["pmix", "cray_shasta", "pmi2"]
    assert candidates(["none"]) == []


def test_each_type_is_tried_by_two_ranks_and_its_answers_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "it's logs"
    folder.mkdir()
    (tmp_path / "srun").write_text(FAKE_SRUN)
    (tmp_path / "srun").chmod(0o755)
    types = ["pmix", "pmi2", "cray_shasta"]
    lines = hello_lines(
        types, layout(profile()), ["apptainer", "exec", "a b.sif"], "/x/libmpi.so", str(folder)
    )
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", "\n".join(["set -eu", *lines])], env=environ, check=True)
    found = {name: read_hello((folder / f"hello-{name}.txt").read_text()) for name in types}
    assert found == {
        "pmix": None,
        "pmi2": "each rank is alone, as rank 0 of 1",
        "cray_shasta": "srun: error: no such plugin",
    }


def test_a_silent_type_is_given_up_after_a_while() -> None:
    assert read_hello("status 124\n") == "no answer within 60 s"
    assert read_hello("") == "the ranks did not meet"


@pytest.mark.parametrize(
    ("launcher", "found", "status", "cure"),
    [
        ("mpi", {"pmix": None, "pmi2": "alone"}, "ok", ""),
        ("mpi", {"pmix": "alone", "pmi2": None}, "failed", "set mpi = 'pmi2'"),
        ("mpi", {"pmix": "alone"}, "failed", "pass --launcher gloo"),
        ("gloo", {"pmix": "alone"}, "ok", ""),
    ],
)
def test_the_profiles_type_must_work_where_a_run_takes_it(
    launcher: str, found: Dict[str, Optional[str]], status: str, cure: str
) -> None:
    site = profile(mpi="pmix_v4")
    (finding,) = check_hellos(found, site, layout(site, launcher))
    assert finding.status == status
    assert finding.cure.startswith(cure)


def test_two_ranks_meet_through_the_mpi_library_alone(tmp_path: Path) -> None:
    mpirun = shutil.which("mpirun")
    libraries: Any = sorted((Path(sys.prefix) / "lib").glob("libmpi.so.*"))
    if mpirun is None or not libraries:
        pytest.skip("needs MPI")
    hello = [sys.executable, "-m", "hpcdl.runtime.examining.hello", str(libraries[0])]
    argv = [mpirun, "-np", "2", "--oversubscribe", *hello]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert read_hello(done.stdout) is None, done.stderr
