"""Saving while a run goes on: when, what, and how all ranks leave together.

Synopsis::

    checkpointing = Checkpointing(...)
    checkpointing.after_step(epoch, step)          # by every rank, after the callbacks have seen the step
    checkpointing.after_epoch(epoch, logs)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

from hpcdl.common.errors import HpcdlError
from hpcdl.common.plan import Plan
from hpcdl.common.saying import say
from hpcdl.common.schedule import Interval
from hpcdl.runtime.best import BestBy
from hpcdl.runtime.callback_states import CallbackStates
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.run_folder import RunFolder
from hpcdl.runtime.state import capture
from hpcdl.runtime.stopping import StopSignals, TimeLeft, Wishes


class Leaving(Exception):
    """All ranks leave now, in order to be started again; the checkpoint is written."""


@dataclass
class Checkpointing:
    """Writes checkpoints of one run, and ends it in the same step on all ranks.

    Attributes:
        model: In training.
        replicas: Of the run.
        plan: Of the run.
        folder: Of the run; None on ranks that do not write.
        is_saved: Whether the run is saved at all; the same on all ranks, which take the state together.
        interval: How often a checkpoint is due.
        best_by: By what a checkpoint is the best, and kept.
        wishes: Of all ranks.
        signals: That came to this rank.
        time_left: Of this rank.
        callbacks: What they remember.
        describe: Gives what else belongs into the meta of a checkpoint after so many steps of the run, as JSON.
        steps_at_save: Steps that were done when the last checkpoint was written.
    """

    model: Any
    replicas: Replicas
    plan: Plan
    folder: Optional[RunFolder]
    is_saved: bool
    interval: Interval
    best_by: BestBy
    wishes: Wishes
    signals: StopSignals
    time_left: TimeLeft
    callbacks: CallbackStates
    describe: Callable[[int], Dict[str, Any]]
    steps_at_save: int = 0
    _saved_at: float = field(default_factory=time.monotonic)

    def after_step(self, epoch: int, step: int) -> bool:
        """Acts on what all ranks have agreed in the step, and notes what this rank wishes for the next.

        The last step of an epoch is left to `after_epoch`, so that no checkpoint lies between the two.

        Args:
            epoch: Counted from 0.
            step: Steps of the epoch that are done.

        Returns:
            Whether all ranks end the epoch here, since a callback ended the training.

        Raises:
            Leaving: On all ranks.
        """
        steps_done = epoch * self.plan.steps_per_epoch + step
        if step < self.plan.steps_per_epoch:
            is_ending, is_leaving = self.wishes.agreed("end"), self.wishes.agreed("leave")
            if is_leaving or self.wishes.agreed("save") or self._is_due(steps_done):
                # A wish to end of this very step, which only the next one would carry, goes into the checkpoint.
                self.wishes.hear_now()
                self._save(epoch, step, must=is_leaving)
            if is_ending:  # to leave would be for nothing but one step more
                self.model.stop_training = True
                return True
            if is_leaving:
                raise Leaving
        self._note_wishes()
        return False

    def after_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Acts at the end of an epoch, validation and callbacks included.

        Raises:
            Leaving: On all ranks, if the run is not at its end anyway.
            HpcdlError: The last checkpoint cannot be written, without which the next start would train again.
        """
        self._note_wishes()
        if self.model.stop_training:  # else what `ends_later` noted in the last step but one still holds
            self.wishes.set("end", True)
        self.wishes.hear_now()
        self.model.stop_training = is_ended = self.wishes.agreed("end")
        is_done = is_ended or epoch + 1 == self.plan.epochs_to_run
        is_leaving = self.wishes.agreed("leave") and not is_done
        steps_done = (epoch + 1) * self.plan.steps_per_epoch
        of_epochs = self.interval.epochs is not None and (epoch + 1) % self.interval.epochs == 0
        if is_done or is_leaving or of_epochs or self.wishes.agreed("save") or self._is_due(steps_done):
            self._save(epoch + 1, 0, must=is_leaving or is_done, is_ended=is_ended, logs=logs)
        if is_leaving:
            raise Leaving
        self.wishes.set("end", False)

    def ends_later(self) -> bool:
        """Notes that a callback of this rank has ended the training in mid-epoch.

        Returns:
            Whether there are other ranks, which hear of it in the next step; all end after that.
        """
        if self.wishes.must_ride:
            self.wishes.set("end", True)
        return self.wishes.must_ride

    def _note_wishes(self) -> None:
        self.wishes.set("leave", self.time_left.is_over() or self.signals.received is not None)
        seconds = self.interval.seconds
        is_due = seconds is not None and time.monotonic() - self._saved_at >= seconds
        self.wishes.set("save", is_due and self.replicas.processes.rank == 0)

    def _is_due(self, steps_done: int) -> bool:
        """Whether so many steps have passed; a number that all ranks know without asking."""
        if self.interval.steps is None:
            return False
        return steps_done - self.steps_at_save >= self.interval.steps

    def _save(
        self,
        epoch: int,
        step: int,
        must: bool,
        is_ended: bool = False,
        logs: Optional[Mapping[str, Any]] = None,
    ) -> None:
        if not self.is_saved:
            return
        started = time.monotonic()
        arrays = capture(self.model, self.replicas)
        steps_done = epoch * self.plan.steps_per_epoch + step
        if self.folder is not None:
            values, of_callbacks = self.callbacks.capture()
            meta = {
                "epoch": epoch,
                "step": step,
                "is_ended": is_ended,
                "is_ending": step > 0 and self.wishes.agreed("end"),
                "epochs": self.plan.epochs_to_run,
                "callbacks": values,
                "score": self.best_by.score(logs or {}),
                **self.describe(steps_done),
            }
            try:
                saved = self.folder.checkpoints.save(steps_done, meta, {**arrays, **of_callbacks})
            except OSError as problem:
                said = f"cannot write the checkpoint of step {steps_done} to {self.folder.path}: {problem.strerror}"
                if must:
                    raise HpcdlError(
                        f"{said}; the one before it is the last; make room, and start the run again"
                    ) from problem
                say(f"{said}; training goes on")
            else:
                _tidy(self.folder, saved, steps_done, meta)
        self._saved_at = time.monotonic()
        self.steps_at_save = steps_done
        self.wishes.set("save", False)
        self.time_left.note_save(self._saved_at - started)


def _tidy(folder: RunFolder, saved: Path, steps_done: int, meta: Mapping[str, Any]) -> None:
    """Does what belongs to a checkpoint and is not needed to go on from it; it may fail."""
    written = f"the checkpoint of step {steps_done} is written, but"
    try:
        folder.checkpoints.prune(saved, meta["best_by"])
    except OSError as problem:
        say(f"{written} older ones remain in {folder.path}: {problem.strerror}")
    try:
        folder.write_history(meta["history"])
    except OSError as problem:
        say(f"{written} not the history in {folder.path}: {problem.strerror}")
