"""How busy a node's GPUs were during a run: the share of time with a kernel on them, as nvidia-smi counts it.

Synopsis::

    watch = GpuUse(topology.local_rank, os.environ)
    model.fit(..., callbacks=[..., watch])
    watch.close()
    watch.percent                                # 97.5; NaN: no GPU here, another rank looks, or nobody can tell
    watch.found(processes)                       # {"gpu_use_percent": 96.1}, the mean of the nodes
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import time
from typing import Any, Dict, List, Mapping, Optional

import numpy as np
import tensorflow as tf

from hpcdl.runtime.watches import Watch

#: A run waits no longer for the end of nvidia-smi.
_END_S = 10.0


class GpuUse(Watch):
    """Lets nvidia-smi look again and again, on one rank of a node, after the first step until it is closed.

    What it says waits in a pipe, which takes some thousand looks. When it is full, nvidia-smi looks no more: those tell
    the mean well enough.

    Args:
        local_rank: 0 looks, at all GPUs of the node that the job has.
        environ: CUDA_VISIBLE_DEVICES names them, where Slurm or a user has set it.
        every_s: Seconds from one look to the next.
        after_s: Seconds from the end of the first step to the first look; a shorter run is not looked at.

    Attributes:
        percent: The mean over GPUs and time; NaN where this rank does not look, or nothing was seen.
    """

    def __init__(
        self, local_rank: int, environ: Mapping[str, str], every_s: int = 1, after_s: float = 0.0
    ) -> None:
        super().__init__()
        self._argv = None if local_rank else _argv(environ, every_s)
        self._after_s = after_s
        self._first_step_ended: Optional[float] = None
        self._process: Optional[subprocess.Popen[str]] = None
        self.percent = math.nan

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._argv is None or self._process is not None:
            return
        now = time.monotonic()
        if self._first_step_ended is None:  # compilation is over
            self._first_step_ended = now
        if now - self._first_step_ended < self._after_s:
            return
        try:
            self._process = subprocess.Popen(
                self._argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
            )
        except OSError:  # a large process may find no memory to fork
            self._argv = None

    def close(self) -> None:
        """Ends the watch; where this process is killed before, nvidia-smi ends as soon as it writes again."""
        if self._process is None:
            return
        process, self._argv, self._process = self._process, None, None
        process.terminate()
        try:
            self.percent = mean_percent(process.communicate(timeout=_END_S)[0])
        except subprocess.TimeoutExpired:  # it waits for a GPU that does not answer
            process.kill()
            if process.stdout is not None:
                process.stdout.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)

    def found(self, processes: Any) -> Dict[str, Any]:
        """Gives the mean of what one rank of each node has seen; None: nobody has."""
        of_ranks = processes.gather(np.array([self.percent]))
        seen = of_ranks[~np.isnan(of_ranks)]
        return {"gpu_use_percent": round(float(seen.mean()), 1) if len(seen) else None}


def mean_percent(said: str) -> float:
    """Gives the mean of the numbers in lines; others ("[N/A]", of a part of a GPU) do not count. NaN: no number."""
    numbers: List[int] = [int(line) for line in said.split() if line.isdigit()]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _argv(environ: Mapping[str, str], every_s: int) -> Optional[List[str]]:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or shutil.which("nvidia-smi", path=environ.get("PATH")) is None:
        return None
    if not tf.config.list_physical_devices("GPU"):
        return None
    words = [
        "nvidia-smi",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
        f"--loop={every_s}",
    ]
    return [*words, *([f"--id={visible}"] if visible else [])]
