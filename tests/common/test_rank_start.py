"""How a rank begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAYS = "import signal as s; print(*(int(n) for n in (s.SIGUSR1, s.SIGUSR2, s.SIGTERM) if s.getsignal(n) == s.SIG_IGN))"


def test_a_warning_that_comes_before_a_run_listens_does_not_kill_the_rank(tmp_path: Path) -> None:
    where = {"HPCDL_RANK": "0", "HPCDL_WORLD_SIZE": "1", "HPCDL_LOCAL_RANK": "0"}
    argv = ["-m", "hpcdl.common.rank_start", "--log-dir", str(tmp_path), "--", sys.executable, "-c", SAYS]
    subprocess.run([sys.executable, *argv], cwd=ROOT, env={**os.environ, **where}, check=True)
    said = (tmp_path / "rank-0000.log").read_text().split()
    assert said == [str(int(number)) for number in (signal.SIGUSR1, signal.SIGUSR2)]
