"""Commands that run as an ordinary user's would, for whom permissions count, also where root runs the tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_PR_CAPBSET_DROP = 24
#: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's rights to read and write what is closed.
_RIGHTS = (1, 2)
ROOT = str(Path(__file__).resolve().parents[1])


def run_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder and gives what it prints."""
    libc = ctypes.CDLL(None)

    def give_up() -> None:
        for right in _RIGHTS:
            libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)

    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ROOT, "PWD": str(cwd)},
        capture_output=True,
        preexec_fn=give_up,
        text=True,
        check=False,
    )
