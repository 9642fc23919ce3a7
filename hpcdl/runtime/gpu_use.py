"""How busy a node's GPUs were during a benchmark: the share of time with a kernel on them, as nvidia-smi counts it.

Synopsis::

    watch = GpuUse(topology.local_rank, os.environ)
    model.fit(..., callbacks=[..., watch])
    watch.close()
    watch.percent                                # 97.5; NaN: no GPU here, another rank looks, or nobody can tell
"""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import Any, List, Mapping, Optional

import tensorflow as tf


class GpuUse(tf.keras.callbacks.Callback):
    """Lets nvidia-smi look once a second, on one rank of a node, from the end of the first step until it is closed.

    Args:
        local_rank: 0 looks, at all GPUs of the node that the job has.
        environ: CUDA_VISIBLE_DEVICES names them, where Slurm or a user has set it.

    Attributes:
        percent: The mean over GPUs and time; NaN where this rank does not look, or nothing was seen.
    """

    def __init__(self, local_rank: int, environ: Mapping[str, str]) -> None:
        super().__init__()
        self._argv = None if local_rank else _argv(environ)
        self._process: Optional[subprocess.Popen[str]] = None
        self.percent = math.nan

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._argv is not None and self._process is None:  # compilation is over
            self._process = subprocess.Popen(
                self._argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
            )

    def close(self) -> None:
        """Ends the watch; where this process is killed before, nvidia-smi ends as soon as it writes again."""
        if self._process is None:
            return
        self._process.terminate()
        said, _ = self._process.communicate()
        self._argv = self._process = None
        self.percent = mean_percent(said)


def mean_percent(said: str) -> float:
    """Gives the mean of the numbers in lines; others ("[N/A]", of a part of a GPU) do not count. NaN: no number."""
    numbers: List[int] = [int(line) for line in said.split() if line.isdigit()]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _argv(environ: Mapping[str, str]) -> Optional[List[str]]:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "" or shutil.which("nvidia-smi", path=environ.get("PATH")) is None:
        return None
    if not tf.config.list_physical_devices("GPU"):
        return None
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1"]
    return [*words, *([f"--id={visible}"] if visible else [])]
