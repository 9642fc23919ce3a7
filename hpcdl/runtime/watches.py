"""What is looked at beside the steps, and put into the run's record.

Synopsis::

    watches = [GpuUse(local_rank, os.environ), LoadWatch(first_step=15, steps_per_epoch=95, hostname="n1")]
    model.fit(..., callbacks=[..., *watches])
    for watch in watches:
        watch.close()
        record.update(watch.found(processes))
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Dict, List, Optional

import tensorflow as tf

from hpcdl.common.load import Busy, Span, read_busy, side_by_side, span


class Watch(tf.keras.callbacks.Callback):
    """A callback that has something to say when the training is over."""

    def close(self) -> None:
        """Ends it, also of a training that failed."""

    def found(self, processes: Any) -> Dict[str, Any]:
        """Gives what belongs into the record; a collective."""
        raise NotImplementedError


class LoadWatch(Watch):
    """Reads the clocks of this machine before the first timed step and after the last.

    Args:
        first_step: Of those that are timed, counted over all epochs.
        steps_per_epoch: Of the run.
        hostname: Of this node.
    """

    def __init__(self, first_step: int, steps_per_epoch: int, hostname: str) -> None:
        super().__init__()
        self._first_step, self._steps_per_epoch, self._hostname = first_step, steps_per_epoch, hostname
        self._epoch = 0
        self._before: Optional[Busy] = None
        self._span: Optional[Span] = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._before is None and self._epoch * self._steps_per_epoch + batch >= self._first_step:
            self._before = read_busy()

    def on_train_end(self, logs: Any = None) -> None:
        if self._before is not None:
            self._span = span(self._before, read_busy())

    def found(self, processes: Any) -> Dict[str, Any]:
        """Gives ``clocks``, of each node a `Span`, by its name; {}: the first timed step was not reached."""
        seen = processes.gather_json([self._hostname, None if self._span is None else asdict(self._span)])
        of_nodes: Dict[str, List[Span]] = {}
        for hostname, clocks in seen:
            if clocks is None:
                return {"clocks": {}}
            of_nodes.setdefault(hostname, []).append(Span(**clocks))
        return {"clocks": {host: asdict(side_by_side(spans)) for host, spans in of_nodes.items()}}
