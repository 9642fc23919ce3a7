"""Starts scripts as people do without ``hpcdl train``: under the mpirun of this environment, on 2 ranks or more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.mpirun import find_mpirun, read_version

ROOT = Path(__file__).resolve().parents[1]
#: Keeps matplotlib out of processes that draw nothing.
WITHOUT_PLOTS = ROOT / "tests" / "without_plots"


def has_mpirun() -> bool:
    """Whether there is an mpirun that hpcdl knows."""
    try:
        find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    except BadInput:
        return False
    return True


def environ_of_script(is_measured: bool = False, draws: bool = False) -> Dict[str, str]:
    """Gives the variables of a script on this hpcdl.

    Ranks of tests share cores: Horovod's thread, which asks the other ranks once a millisecond, would take a quarter of
    their time. Coverage is not measured as a rule, since it costs half as much time again; and there is no matplotlib,
    which Keras 3 loads where it is.
    """
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*([] if draws else [str(WITHOUT_PLOTS)]), str(ROOT)]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "HOROVOD_CYCLE_TIME": "10",
    }
    if not is_measured:
        environ.pop("COVERAGE_PROCESS_CONFIG", None)
    return environ


needs_mpirun = pytest.mark.skipif(not has_mpirun(), reason="no mpirun")


@dataclass(frozen=True)
class Ended:
    """What a launch left: exit status, both streams, seconds. mpirun's own words on standard error are left out."""

    status: int
    out: str
    said: List[str]
    seconds: float


def under_mpirun(folder: Path, command: Sequence[str], np: int = 2, options: Sequence[str] = ()) -> Ended:
    """Runs ``python COMMAND`` in a folder, on np ranks of a bare mpirun."""
    mpirun = find_mpirun(Path(sys.executable).parent, shutil.which, read_version)
    ours = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    oversubscribe = ["--map-by", "slot:OVERSUBSCRIBE"] if mpirun.kind == "openmpi" else []
    started = time.monotonic()
    done = subprocess.run(
        [mpirun.path, "-np", str(np), *oversubscribe, *options, sys.executable, *command],
        cwd=str(folder),
        env={**environ_of_script(), **ours},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith(("hpcdl:", "Traceback"))]
    return Ended(done.returncode, done.stdout, said, time.monotonic() - started)
