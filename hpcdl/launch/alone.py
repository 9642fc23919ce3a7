"""One process without a launcher: a child that has this terminal; its curves are drawn when it is done.

Synopsis::

    status = run_alone([sys.executable, "-m", "hpcdl.runtime", "my_script.py"], os.environ)
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping, Sequence

from hpcdl.common.errors import EXIT_DONE
from hpcdl.common.records import NOTES_DIR, read_run_dirs
from hpcdl.common.saying import say
from hpcdl.launch.mpirun import end_of_returncode
from hpcdl.launch.processes import end_with_parent
from hpcdl.launch.show import draw_each
from hpcdl.launch.watch import Interrupts

_POLL_S = 0.1


def run_alone(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs a command, hands signals on to it, and draws the curves of the runs that it leaves.

    Returns:
        Its exit status; 128 + the signal that killed it, as a shell gives.
    """
    with Interrupts() as interrupts, tempfile.TemporaryDirectory(prefix="hpcdl-") as notes:
        child = subprocess.Popen(
            list(command), env={**environ, NOTES_DIR: notes}, preexec_fn=end_with_parent(signal.SIGKILL)
        )
        status = None
        while status is None:
            try:
                status = child.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                for number in interrupts.take():
                    if not (number == signal.SIGINT and _has_terminal()):
                        child.send_signal(number)
        if status == EXIT_DONE:
            draw_each(read_run_dirs(Path(notes)))
    end = end_of_returncode(0, status)
    if end.signal is not None:
        say(f"the run was killed by {end.signal_name}")
    return end.exit_status


def _has_terminal() -> bool:
    """Says whether a terminal's Ctrl-C reaches this process, and so its child by itself."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
