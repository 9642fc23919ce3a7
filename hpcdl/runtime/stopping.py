"""When a run stops before its end: who may ask for it, and how all ranks come to do it in the same step.

A rank that is asked to stop (by a signal, or because its time is nearly over) notes a wish; nothing else happens in a
signal handler. The wishes of all ranks ride in the exchange of the gradients, so after a step every rank knows the
same ones, at the cost of a few bytes.

Synopsis::

    signals = StopSignals()
    wishes = Wishes(processes)
    with signals, averaged_gradients(optimizer, parts, wishes):
        wishes.set("leave", signals.received is not None)       # on any rank, at any time
        train_function(iterator)
        if wishes.agreed("leave"): ...                          # on every rank, after the same step
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np
import tensorflow as tf

from hpcdl.common.errors import BadInput

#: leave: save and leave, to be started again; save: write a checkpoint; end: a callback has ended the training.
WISHES = ("leave", "save", "end")


class StopSignals:
    """Notes the signals that ask a run to save and to leave, for as long as the context lasts: that of a fit.

    Attributes:
        received: The first such signal; None if there was none.
        had_a_fit: Whether there was a fit of this run before, in this process.
    """

    _WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
    _NUMBERS = (signal.SIGTERM, *_WARNINGS)

    def __init__(self) -> None:
        self.received: Optional[int] = None
        self.had_a_fit = False
        self._previous: Dict[int, Any] = {}

    def listen(self) -> None:
        """Notes the warnings that a job ends soon from now on: they may come while the data are being read.

        SIGTERM ends a process that is not in a fit; a handler of the script's own stays.
        """
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in self._WARNINGS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
                    signal.signal(number, self._note)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self._NUMBERS}
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        self.had_a_fit = True

    def _note(self, number: int, frame: Any) -> None:
        # A second signal must not shorten what the first one started: Slurm sends each twice.
        self.received = self.received or number


def end_time(environ: Mapping[str, str], given: Optional[float]) -> Optional[float]:
    """Gives the time, in seconds since 1970, at which this process will be ended.

    Args:
        environ: The job's keeper says it in HPCDL_END_TIME, and Slurm, from 23.02 on, in SLURM_JOB_END_TIME.
        given: What the user said; it wins.

    Raises:
        BadInput: HPCDL_END_TIME is no time.
    """
    if given is not None:
        return given
    ours, slurms = (environ.get(name, "") for name in ("HPCDL_END_TIME", "SLURM_JOB_END_TIME"))
    if ours:
        try:
            return float(ours)
        except ValueError:
            raise BadInput(
                f"HPCDL_END_TIME must be in seconds since 1970; received {ours!r}; unset it, or set it to what"
                " `date -d TIME +%s` says"
            ) from None
    return float(slurms) if slurms.isdigit() else None


class TimeLeft:
    """Says when it is time to stop: so early that a checkpoint can still be written.

    The margin is twice what the longest checkpoint took, twice the longest time between two chances to stop (a
    validation, say), and 10 s for the processes to leave.

    Args:
        end: Seconds since 1970; None: never.
        clock: Gives the present time likewise.
    """

    _TO_LEAVE_S = 10.0

    def __init__(self, end: Optional[float], clock: Callable[[], float] = time.time) -> None:
        self._end, self._clock = end, clock
        self._last_look: Optional[float] = None
        self._longest_pause_s = 0.0
        self._longest_save_s = 0.0

    @property
    def margin_s(self) -> float:
        """How long before the end it is time to stop."""
        return 2 * (self._longest_pause_s + self._longest_save_s) + self._TO_LEAVE_S

    def note_save(self, seconds: float) -> None:
        """Learns how long a checkpoint took; the next pause does not count it again."""
        self._longest_save_s = max(self._longest_save_s, seconds)
        self._last_look = self._clock()

    def is_over(self) -> bool:
        """Says whether it is time to stop; each call is a chance to do so."""
        now = self._clock()
        if self._last_look is not None:
            self._longest_pause_s = max(self._longest_pause_s, now - self._last_look)
        self._last_look = now
        return self._is_near(now)

    def is_too_short(self) -> bool:
        """Says whether it is too short for a single step; a look before the first one, and no chance to stop."""
        return self._is_near(self._clock())

    def _is_near(self, now: float) -> bool:
        return self._end is not None and now >= self._end - self.margin_s

    def check(self) -> None:
        """Refuses an end that leaves no time for a single step.

        Raises:
            BadInput: It is over, or nearly so.
        """
        if self._end is not None and self.is_too_short():
            raise BadInput(
                f"the end time must be in the future, by {self.margin_s:.0f} s and what a step takes; received"
                f" {self._end:.0f}, which is {self._end - self._clock():.0f} s from now; pass a later --end-time"
            )


class Wishes:
    """What any rank wishes besides the step, and what all have heard of.

    Args:
        processes: Of the run.
    """

    def __init__(self, processes: Any) -> None:
        self._processes = processes
        self._mine = np.zeros(len(WISHES), np.float32)
        with tf.device("CPU:0"):
            self._sent = tf.Variable(self._mine, trainable=False, name="wishes")
            self._heard = tf.Variable(self._mine, trainable=False, name="agreed_wishes")

    @property
    def must_ride(self) -> bool:
        """Whether there are other ranks, so that wishes must ride in the exchange."""
        return bool(self._processes.size > 1)

    def set(self, wish: str, holds: bool) -> None:
        """Notes what this rank wishes; it is heard of after the next step, or the next `hear_now`."""
        at = WISHES.index(wish)
        if self._mine[at] != holds:
            self._mine[at] = holds
            self._sent.assign(self._mine)

    def to_send(self, dtype: Any) -> Any:
        """Gives this rank's wishes, within a step, as a tensor to be summed over the ranks."""
        return tf.cast(tf.convert_to_tensor(self._sent), dtype)

    def hear(self, sums: Any) -> Any:
        """Takes the sums, within the step."""
        return self._heard.assign(tf.cast(sums, tf.float32))

    def hear_now(self) -> None:
        """Exchanges the wishes outside of a step; a collective."""
        (sums,) = self._processes.sum([tf.constant(self._mine)])
        self._heard.assign(sums)

    def agreed(self, wish: str) -> bool:
        """Says whether any rank had this wish; the same answer on every rank."""
        heard = self._heard.numpy() if self.must_ride else self._mine
        return bool(heard[WISHES.index(wish)] > 0)
