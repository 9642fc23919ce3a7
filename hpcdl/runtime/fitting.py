"""One fit, from its checked arguments to its history: agree, resume, train, save, record.

Synopsis::

    done = Fit(model=model, source=source, plan=plan, ...).run()
    done.history, done.samples_per_second
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import EXIT_REQUEUE, BadInput, HpcdlError
from hpcdl.common.options import changed
from hpcdl.common.plan import Plan
from hpcdl.common.records import note_run_dir
from hpcdl.common.saying import say
from hpcdl.common.schedule import Interval
from hpcdl.common.step_times import StepLog
from hpcdl.common.topology import Topology
from hpcdl.runtime import agreement, keras_edge, steps
from hpcdl.runtime.best import BestBy
from hpcdl.runtime.callback_list import Callbacks, Start
from hpcdl.runtime.callback_states import CallbackStates
from hpcdl.runtime.checkpointing import Checkpointing, Leaving
from hpcdl.runtime.checkpoints import Checkpoint
from hpcdl.runtime.clock import Clock
from hpcdl.runtime.csv_logs import continued
from hpcdl.runtime.execution import Execution
from hpcdl.runtime.feed import Order
from hpcdl.runtime.following import Following
from hpcdl.runtime.gpu_use import GpuUse
from hpcdl.runtime.history import History
from hpcdl.runtime.identity import architecture, differences, digest
from hpcdl.runtime.monitoring import WatchedNames
from hpcdl.runtime.processes import broadcast_arrays, from_rank_0
from hpcdl.runtime.randomness import foreign_random_states, stateful_random_ops
from hpcdl.runtime.rates import scaled_rate
from hpcdl.runtime.record import new_record, now, peak_bytes, versions
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.run_folder import RunFolder, columns
from hpcdl.runtime.sources import Source
from hpcdl.runtime.state import layout, restore
from hpcdl.runtime.stopping import StopSignals, TimeLeft, Wishes
from hpcdl.runtime.tracing import Tracing, trace_folder
from hpcdl.runtime.users_callbacks import kept_apart, of_this_rank, writes
from hpcdl.runtime.watches import LoadWatch, Watch

_CHECKPOINT_VERSION = 2
#: How often somebody looks at the GPUs of a run that is no benchmark.
_LOOK_S = 30


@dataclass(frozen=True)
class Done:
    """What a fit gave.

    Attributes:
        history: Of all epochs, also of those of earlier starts.
        samples_per_second: Of all ranks, median over the whole epochs of this start without the first, which compiles
            (unless it is the only one); None if there was none.
    """

    history: History
    samples_per_second: Optional[float]


@dataclass
class Fit:
    """Everything that one fit needs.

    Attributes:
        model: Compiled, with its variables and those of its metrics.
        source: The data to train on.
        validation: The data to validate on; None: no validation.
        plan: Of the run.
        identity: Of the run.
        seed: Of the run.
        shuffle: Whether the samples are shuffled.
        users_callbacks: The user's callbacks, of all ranks.
        verbose: As in Keras; 0 except on rank 0.
        topology: This process' place.
        replicas: Of the run.
        run_dir: The folder of the run.
        is_fresh: Whether to start anew.
        interval: How often a checkpoint is due.
        keep_checkpoints: How many of the last ones are kept.
        best_by: By what a checkpoint is the best, and kept.
        execution: How Keras runs the steps.
        signals: That came to this process.
        end_time: At which it will be ended, in seconds since 1970.
        bench: What a benchmark changes.
    """

    model: Any
    source: Source
    validation: Optional[Source]
    plan: Plan
    identity: Dict[str, Any]
    seed: int
    shuffle: bool
    users_callbacks: Sequence[Any]
    verbose: int
    topology: Topology
    replicas: Replicas
    run_dir: Path
    is_fresh: bool
    interval: Interval
    keep_checkpoints: int
    best_by: BestBy
    execution: Execution
    signals: StopSignals
    end_time: Optional[float]
    bench: BenchSettings

    def run(self) -> Done:
        """Trains, or goes on with what is in the run folder.

        Raises:
            BadInput: The ranks differ, the folder belongs to another run, or no time is left for the first fit of this
                process.
            SystemExit: With status 85, on all ranks: stopped in order to be started again.
        """
        agreement.check(
            self.replicas.processes,
            agreement.describe(self.model, self.plan, self.identity, self.validation, self.interval),
        )
        time_left = TimeLeft(self.end_time)
        folder = RunFolder(self.run_dir, self.keep_checkpoints)

        def open_folder() -> Dict[str, Any]:
            # A start that has done nothing would be followed by one that gets no further: its end is bad input.
            if not self.signals.had_a_fit:
                time_left.check()
            elif self.signals.received is not None or time_left.is_too_short():
                return {"is_leaving": True}
            before = folder.open(self.identity, self.is_fresh, architecture(self.model))
            note_run_dir(os.environ, self.run_dir)
            return {"is_leaving": False, "before": before}

        try:
            answer = from_rank_0(self.replicas.processes, open_folder)
            if answer["is_leaving"]:
                if self.topology.is_rank_0:
                    say(f"stopped before {self.run_dir} begins, to be started again")
                self._leave()
            with self.signals:
                return self._run_in(folder, answer["before"], time_left)
        finally:
            folder.close()

    def _leave(self) -> NoReturn:
        """Ends this process, and all others, in order to be started again."""
        # A launcher ends the others as soon as one has left: nobody leaves before rank 0 has written.
        self.replicas.processes.barrier()
        self.replicas.processes.shutdown()
        raise SystemExit(EXIT_REQUEUE) from None

    def _run_in(self, folder: RunFolder, before: Optional[Dict[str, Any]], time_left: TimeLeft) -> Done:
        is_writer = self.topology.is_rank_0
        with self.replicas.scope():
            keras_edge.build_global_seed(self.model)
        found: List[Checkpoint] = []

        def look() -> Optional[Dict[str, Any]]:
            newest = folder.checkpoints.newest(self._why_not_usable, say)
            found.extend([newest] if newest is not None else [])
            return newest.meta if newest is not None else None

        meta = from_rank_0(self.replicas.processes, look)
        arrays = found[0].arrays() if found else None
        if before is not None and before.get("status") == "done" and self._is_over(meta):
            # What was measured is what the record says; this start only gives the results back.
            return Done(self._train(None, meta, arrays, time_left, ())[0], before["samples_per_second"])
        record = new_record(self.plan, self.model, self.seed, self.topology, self.identity, os.environ)
        record["config"]["xla"] = self.execution.uses_xla
        record["config"]["samples_in_data"] = self.source.num_samples
        if before is not None and meta is not None:
            record["started"] = before.get("started", record["started"])
            record["resumed"] = [*before.get("resumed", []), {"time": now(), **_position(meta)}]
            record["samples_per_second"] = before.get("samples_per_second")
        if self.bench.steps is not None:
            record["bench"] = changed(self.bench)
        if is_writer:
            if "bench" in record:
                say(f"this run is a benchmark, and ends with this fit: {record['bench']}")
            try:
                folder.write(record)
                folder.link_logs(record["log_dir"])
                folder.write_architecture(architecture(self.model))
            except OSError as problem:
                raise HpcdlError(
                    f"a run begins with its record; {self.run_dir} does not take it: {problem.strerror}; make room, and"
                    " start the run again"
                ) from problem
        watches = self._watches()
        try:
            saves = is_writer and self.bench.steps is None  # what a benchmark trained is of no use
            history, seconds = self._train(folder if saves else None, meta, arrays, time_left, watches)
        except Leaving:
            if is_writer:
                _write_or_say(folder, {**record, "status": "stopped", "ended": now()})
                unsaved = "stopped before its steps were timed, with nothing saved"
                how = "saved and stopped" if saves else unsaved
                say(f"{how}, to be started again; {self.run_dir} holds the run")
            self._leave()
        except BaseException as error:
            is_new = before is None and meta is None
            if is_writer and is_new and isinstance(error, BadInput) and not folder.checkpoints.has_any():
                folder.remove()
            elif is_writer:
                said = f"{type(error).__name__}: {error}".splitlines()[0]
                _write_or_say(folder, {**record, "status": "failed", "ended": now(), "error": said})
            raise
        for watch in watches:
            record.update(watch.found(self.replicas.processes))
        return self._finish(folder, record, history, seconds)

    def _train(
        self,
        folder: Optional[RunFolder],
        meta: Optional[Dict[str, Any]],
        arrays: Optional[Dict[str, np.ndarray]],
        time_left: TimeLeft,
        watches: Sequence[Watch],
    ) -> Tuple[History, List[float]]:
        plan, model, replicas = self.plan, self.model, self.replicas
        epoch, step = (meta["epoch"], meta["step"]) if meta is not None else (0, 0)
        users = of_this_rank(self.users_callbacks, self.topology.is_rank_0)
        if self._is_over(meta):
            epoch, step = plan.epochs_to_run, 0
            users = [callback for callback in users if not writes(callback)]
        first_step = epoch * plan.steps_per_epoch + step
        first_iteration = meta["first_iteration"] if meta else keras_edge.iterations(model.optimizer)
        began_with = self._initial_weights(meta)
        self._prepare(meta, arrays, first_step)
        states = CallbackStates(self.users_callbacks)
        wishes = Wishes(replicas.processes)
        wishes.set("end", bool(meta and meta.get("is_ending")))
        fit_arguments, validation_steps, of_validation = self._validation_arguments()
        order = Order(plan.num_samples, plan.batches.global_batch_size, self.seed if self.shuffle else None)

        with ExitStack() as stack:
            stack.enter_context(kept_apart(users, replicas))
            if meta is not None:
                stack.enter_context(continued(users, epoch))
            stack.enter_context(scaled_rate(model.optimizer, plan, first_iteration))
            overrides, tell = self.execution.overrides, self._tell_what_no_checkpoint_holds
            of_steps = steps.exact_steps(model, replicas, overrides, wishes, tell)
            hook, logs = stack.enter_context(of_steps)
            stack.enter_context(steps.first_steps_skipped(model, step, plan.steps_per_epoch))
            guard_every = None if self.bench.without_exchange else 100
            following = Following(replicas, logs, hook, plan, validation_steps, guard_every)
            log = StepLog(self.run_dir, self.topology.rank, self.topology.hostname)
            clock = Clock(log, plan.steps_per_epoch)
            others = [
                *self.execution.callbacks(plan.steps_per_epoch, validation_steps),
                *self.source.callbacks(order, replicas),
                *of_validation,
                *users,
            ]
            if self.topology.is_rank_0:
                others.append(WatchedNames(self.best_by.name if folder is not None else None, users))
            if self.bench.trace:
                where = trace_folder(self.run_dir, self.topology.rank)
                others.append(Tracing(where, self.bench.untimed_steps))
            for watch in watches:
                stack.callback(watch.close)
                others.append(watch)
            history = History(meta["history"] if meta is not None else {}, self.topology.is_rank_0)

            def describe(steps_done: int) -> Dict[str, Any]:
                return {
                    "data": self.source.mark(steps_done),
                    "checkpoint_version": _CHECKPOINT_VERSION,
                    "time": now(),
                    "identity": self.identity,
                    "layout": layout(model),
                    "num_replicas": replicas.num_replicas,
                    "strategy": plan.strategy,
                    "world_size": plan.world_size,
                    "first_iteration": first_iteration,
                    "initial_weights": began_with,
                    "history": history.by_name(),
                    "best_by": str(self.best_by),
                    "versions": versions(),
                }

            checkpointing = Checkpointing(
                model=model,
                replicas=replicas,
                plan=plan,
                folder=folder,
                is_saved=self.bench.steps is None,
                interval=self.interval,
                best_by=self.best_by,
                wishes=wishes,
                signals=self.signals,
                time_left=time_left,
                callbacks=states,
                describe=describe,
                steps_at_save=first_step,
            )

            @contextmanager
            def going_on() -> Iterator[None]:
                with states.kept():
                    yield
                self._restore(meta, arrays, first_step)

            start = Start(epoch, step, lambda: self._restore_callbacks(states, meta, arrays), going_on)
            callbacks = Callbacks(
                following, clock, others, history, checkpointing, start, model, plan, self.verbose
            )
            self.bench.meet()
            stack.enter_context(self.source.explained())
            mark = meta.get("data") if meta is not None else None
            keras_edge.forget_validation(model)
            model.fit(
                self.source.feed(order, replicas, plan.epochs_to_run, first_step, mark),
                initial_epoch=epoch,
                epochs=plan.epochs_to_run,
                steps_per_epoch=plan.steps_per_epoch,
                callbacks=callbacks,
                verbose=self.verbose,
                shuffle=False,  # the feed does
                **fit_arguments,
            )
        return history, clock.epoch_seconds

    def _watches(self) -> Sequence[Watch]:
        if self.bench.steps is None:
            return (GpuUse(self.topology.local_rank, os.environ, every_s=_LOOK_S, after_s=_LOOK_S),)
        return (
            GpuUse(self.topology.local_rank, os.environ),
            LoadWatch(self.bench.untimed_steps, self.plan.steps_per_epoch, self.topology.hostname),
        )

    def _initial_weights(self, meta: Optional[Dict[str, Any]]) -> str:
        """Tells the weights that the run began with from others; a collective."""
        variables = [keras_edge.plain_variable(v) for v in self.model.trainable_variables]
        mine = digest(self.replicas.checksums(variables)[0].tolist())
        began_with = mine if meta is None else str(meta.get("initial_weights", mine))
        if mine != began_with and self.topology.is_rank_0:
            say(
                f"the weights of this model are not those that {self.run_dir} began with; they are not taken, since the"
                " run goes on with its own; pass --fresh, or another --run-dir, to train from them"
            )
        return began_with

    def _prepare(
        self, meta: Optional[Dict[str, Any]], arrays: Optional[Dict[str, np.ndarray]], first_step: int
    ) -> None:
        """Gives all ranks one state: rank 0's, or that of the checkpoint."""
        model, replicas = self.model, self.replicas
        if meta is None:
            replicas.broadcast(keras_edge.synchronized_variables(model))
            replicas.broadcast(keras_edge.own_variables(model))
            steps.split_seeds(model, self.seed, replicas)
            return
        if self.topology.is_rank_0:
            say(self._resume_words(meta))
        self._restore(meta, arrays, first_step)

    def _restore(self, meta: Any, arrays: Optional[Dict[str, np.ndarray]], first_step: int) -> None:
        """Gives all ranks the state of a checkpoint; a collective."""
        restore(
            self.model,
            self.replicas,
            arrays,
            meta["num_replicas"],
            new_seeds=lambda: steps.split_seeds(self.model, self.seed, self.replicas, since_step=first_step),
        )

    def _is_over(self, meta: Optional[Dict[str, Any]]) -> bool:
        """Whether a checkpoint holds all epochs that are asked for, or a callback has ended them."""
        if meta is None:
            return False
        has_ended = meta["is_ended"] and meta["epochs"] >= self.plan.epochs_to_run
        return bool(has_ended or meta["epoch"] >= self.plan.epochs_to_run)

    def _resume_words(self, meta: Dict[str, Any]) -> str:
        plan = self.plan
        if self._is_over(meta):
            return (
                f"{self.run_dir} is finished: {meta['epoch']} epochs were trained; more epochs go on with it,"
                " --fresh starts anew"
            )
        words = (
            f"going on with {self.run_dir} after {meta['epoch']} epochs and {meta['step']} of"
            f" {plan.steps_per_epoch} steps, saved at {meta['time']}"
        )
        if meta["num_replicas"] != self.replicas.num_replicas:
            words += (
                f"; on {self.replicas.num_replicas} replicas instead of {meta['num_replicas']}: the same batches, but"
                " random layers draw other numbers, and sums are rounded otherwise"
            )
        return words

    def _tell_what_no_checkpoint_holds(self, graph: tf.Graph) -> None:
        if not self.topology.is_rank_0:
            return
        names = stateful_random_ops(graph)
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            say(
                f"a resumed run will not be bit-exact: {names[0]}{more} draws random numbers that no checkpoint holds;"
                " draw them by keras.random, or by a tf.random.Generator that is an attribute of the layer"
            )
        model = self.model
        known = [*keras_edge.seed_variables(model), *keras_edge.own_variables(model)]
        known += [*keras_edge.metric_variables(model), *keras_edge.synchronized_variables(model)]
        num_strangers = foreign_random_states(graph, [c for v in known for c in self.replicas.copies(v)])
        if num_strangers:
            say(
                "random generators belong to layers, so that each replica draws its own numbers, and a resumed run the"
                f" same; received {num_strangers} in the step that no layer has: a resumed run will not be bit-exact,"
                " and ranks draw alike; make each an attribute of the layer that draws from it"
            )

    def _restore_callbacks(
        self,
        states: CallbackStates,
        meta: Optional[Dict[str, Any]],
        arrays: Optional[Dict[str, np.ndarray]],
    ) -> None:
        states.begin()
        if meta is None:
            return
        of_callbacks = {k: v for k, v in (arrays or {}).items() if k.startswith("callback/")}
        received = broadcast_arrays(self.replicas.processes, of_callbacks)
        missing = states.restore(meta["callbacks"], received)
        if missing and self.topology.is_rank_0:
            say(f"callbacks that were there before are not here now, and start anew: {', '.join(missing)}")

    def _validation_arguments(self) -> Tuple[Dict[str, Any], int, List[Any]]:
        """Gives what model.fit takes for the validation, its steps, and its callbacks."""
        if self.validation is None:
            return {}, 0, []
        size = self.validation.batch_size or self.plan.batches.global_batch_size
        order = Order(self.validation.num_samples, size, None)
        data = self.validation.feed(order, self.replicas, epochs=None)
        steps = order.steps_per_epoch
        callbacks = self.validation.test_callbacks(order, self.replicas)
        return {"validation_data": data, "validation_steps": steps}, steps, callbacks

    def _why_not_usable(self, meta: Any) -> Optional[str]:
        """Says why a whole checkpoint does not fit this run; None if it does."""
        if meta.get("checkpoint_version") != _CHECKPOINT_VERSION:
            return f"it has version {meta.get('checkpoint_version')}, this hpcdl knows {_CHECKPOINT_VERSION}"
        foreign = differences(meta["identity"], self.identity)
        if foreign:
            return f"it is of another run: {'; '.join(foreign)}"
        if meta["layout"] != layout(self.model):
            was = meta["versions"]
            return (
                "its variables are not those of the model; it was written under TensorFlow"
                f" {was['tensorflow']} with Keras {was['keras']}"
            )
        return None

    def _finish(
        self, folder: RunFolder, record: Dict[str, Any], history: History, epoch_seconds: Sequence[float]
    ) -> Done:
        slowest = self.replicas.processes.gather(np.asarray(epoch_seconds)).max(axis=0)
        host_bytes, gpu_bytes = self.replicas.processes.gather(peak_bytes()).max(axis=0)
        rate = record.get("samples_per_second")
        if len(slowest):
            rate = float(self.plan.num_samples / np.median(slowest[1:] if len(slowest) > 1 else slowest))
        values = history.by_name()
        record.update(
            status="done",
            ended=now(),
            epoch_seconds=[float(s) for s in slowest],
            samples_per_second=rate,
            memory={"host_peak_bytes": int(host_bytes), "gpu_peak_bytes": int(gpu_bytes) or None},
            final_metrics={
                name: of_epochs[-1]
                for name, of_epochs in columns(values).items()
                if of_epochs[-1] is not None
            },
        )
        if self.topology.is_rank_0:
            try:
                self._write_results(folder, record, values)
            except OSError as problem:
                raise HpcdlError(
                    f"all epochs are trained, and {self.run_dir} does not take the results: {problem.strerror};"
                    " make room, and start the run again: it goes on from its last checkpoint"
                ) from problem
        return Done(history, rate)

    def _write_results(self, folder: RunFolder, record: Dict[str, Any], values: Dict[str, List[Any]]) -> None:
        problem = folder.save_model(self.model) if self.bench.steps is None else None
        if problem is not None:
            say(
                f"Keras could not save this model as a .keras file ({problem}); its weights are in the checkpoint"
            )
        folder.write_history(values)
        folder.write(record)


def _write_or_say(folder: RunFolder, record: Dict[str, Any]) -> None:
    """Writes the record of a run that ends early; that it cannot be written must not hide why the run ends."""
    try:
        folder.write(record)
    except OSError as problem:
        say(f"cannot note in {folder.path} that the run {record['status']}: {problem.strerror}")


def _position(meta: Dict[str, Any]) -> Dict[str, Any]:
    return {name: meta[name] for name in ("epoch", "step")}
