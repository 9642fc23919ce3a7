"""The core: where am I, and one `fit` that takes the same steps in every world.

Synopsis::

    run = hpcdl.init()
    with run.scope():
        model = build()                   # any compiled Keras model, with a plain Keras optimizer
    history = run.fit(model, x_train, y_train, per_replica_batch_size=128, epochs=12,
                      validation_data=(x_test, y_test), lr_scaling="linear", warmup_epochs=1)
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any, Mapping, Optional, Union

from hpcdl.common.bench import BenchSettings
from hpcdl.common.checks import whole_number
from hpcdl.common.errors import EXIT_DONE, BadInput
from hpcdl.common.plan import Plan, render
from hpcdl.common.saying import say
from hpcdl.common.schedule import parse_interval, resolve_batches, warmup_number
from hpcdl.common.topology import Choice, Topology, choose_strategy, read_topology
from hpcdl.common.words import MAX_SEED, RunSettings
from hpcdl.runtime import bare, ending, uncaught
from hpcdl.runtime.arguments import refuse_unknown, refuse_unnamed, verbosity
from hpcdl.runtime.collecting import leave_out_what_is_loaded
from hpcdl.runtime.control import FromMemory, WithoutExchange
from hpcdl.runtime.devices import pin_devices, use_threads
from hpcdl.runtime.processes import Alone, HorovodProcesses, start_horovod
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.tracing import timeline_environ
from hpcdl.runtime.use import check_at_end, note_model, note_use
from hpcdl.runtime.world import World


def init(
    strategy: str = "auto", replicas: Optional[int] = None, seed: int = 0, run_dir: Optional[str] = None
) -> Run:
    """Finds this process's place, pins its GPU, starts Horovod where there are several ranks, and sets all seeds.

    Options of `hpcdl train`, or HPCDL_* variables, win over these arguments where they are given.

    Args:
        strategy: ``single``, ``mirrored``, ``horovod``, ``hybrid`` or ``auto`` (the table of `choose_strategy`).
        replicas: Replicas per process; None lets the devices decide.
        seed: Of weights, data order and random layers, from 0 to 2^32 - 1.
        run_dir: Where the run keeps its records and checkpoints; None: ``runs/<title>-<digest>``.

    Returns:
        The run, as this rank sees it.

    Raises:
        BadInput: The strategy does not fit the world, Keras has another backend than TensorFlow (`hpcdl.__getattr__`),
            Horovod is missing, or the world that it sees is not the one that the launcher started.
        HpcdlError: Other ranks did not come within 300 s; they are named.
    """
    uncaught.install()
    ending.install()
    seed = whole_number("seed", seed, least=0, most=MAX_SEED)
    settings = RunSettings.from_environ(os.environ)
    topology = read_topology(os.environ, socket.gethostname())
    planned_world = os.environ.get("HPCDL_PLAN_WORLD_SIZE")

    import tensorflow as tf

    from hpcdl.runtime.keras_edge import set_precision, set_seeds

    gpus = tf.config.list_physical_devices("GPU")
    world = topology if planned_world is None else _planned(topology, int(planned_world))
    choice = choose_strategy(
        settings.strategy if settings.strategy != "auto" else strategy,
        settings.replicas_per_process or replicas,
        world,
        len(gpus),
        "GPU" if gpus else "CPU",
    )
    num_replicas = world.world_size * choice.replicas
    if settings.xla and num_replicas > 1:
        raise BadInput(
            "--xla compiles the steps of one replica in one process, since XLA cannot compile the exchange; received it"
            f" with {num_replicas} replicas; leave it out, or start one process"
        )
    is_plan_only = planned_world is not None
    own = bare.Settings() if is_plan_only else bare.settle(topology, os.environ, len(gpus))
    os.environ.update(own.environ)
    devices = ["CPU:0"] if is_plan_only else pin_devices(choice.replicas, topology.local_rank)
    if own.num_threads is not None:
        use_threads(own.num_threads)
    bench = BenchSettings.from_environ(os.environ)
    where = settings.run_dir or run_dir
    if bench.trace and where is not None and not is_plan_only:
        os.environ.update(timeline_environ(Path(where)))
    if world.world_size == 1 or is_plan_only:
        processes: Union[Alone, HorovodProcesses] = Alone()
    else:
        processes = start_horovod(topology, settings.controller, os.environ)
    for warning in (*topology.warnings, *own.warnings):
        say(warning)
    seed = settings.seed if settings.seed is not None else seed
    set_seeds(seed)
    if settings.precision is not None:
        set_precision(settings.precision)
    leave_out_what_is_loaded()
    control = FromMemory if bench.cached_input else WithoutExchange
    replicas_of = control if bench.cached_input or bench.without_exchange else Replicas
    if not is_plan_only:
        check_at_end(world.world_size)
    return Run(
        world,
        choice,
        replicas_of(processes, devices),
        seed,
        Path(where) if where else None,
        is_plan_only,
        settings,
        bench,
    )


def _planned(topology: Topology, world_size: int) -> Topology:
    """Gives rank 0's place in a world that is only planned, on one node."""
    return Topology(
        rank=0,
        world_size=world_size,
        local_rank=0,
        local_world_size=world_size,
        node_rank=0,
        num_nodes=1,
        hostname=topology.hostname,
        launcher="none" if world_size == 1 else "hpcdl",
    )


class Run(World):
    """One training run, as one rank sees it; made by `init`. What it has of `World` serves loops of a script's own.

    Attributes:
        seed: Of weights, data order and random layers.
        run_dir: The folder of the last `fit`; before it, what the user asked for, or None.
        samples_per_second: Of the last `fit`: samples of all ranks, median over its epochs without the first, which
            compiles (unless it is the only one).
    """

    def __init__(
        self,
        topology: Topology,
        choice: Choice,
        replicas: Replicas,
        seed: int,
        run_dir: Optional[Path],
        is_plan_only: bool,
        settings: RunSettings,
        bench: BenchSettings,
    ) -> None:
        from hpcdl.runtime.stopping import StopSignals

        super().__init__(topology, choice, replicas, is_plan_only)
        self.seed = seed
        self.run_dir = run_dir
        self.samples_per_second: Optional[float] = None
        self._settings = settings
        self._bench = bench
        self._signals = StopSignals()
        self._signals.listen()
        self._base_dir = run_dir
        self._num_fits = 0

    def fit(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *unnamed: Any,
        per_replica_batch_size: Optional[int] = None,
        global_batch_size: Optional[int] = None,
        reference_batch_size: Optional[int] = None,
        epochs: int = 1,
        steps_per_epoch: Optional[int] = None,
        validation_data: Any = None,
        validation_steps: Optional[int] = None,
        lr_scaling: str = "none",
        warmup_epochs: float = 0,
        scale_epochs: bool = False,
        class_weight: Optional[Mapping[int, float]] = None,
        callbacks: Any = None,
        shuffle: bool = True,
        verbose: Any = "auto",
        checkpoint_every: Optional[str] = None,
        keep_checkpoints: int = 3,
        best_by: Optional[str] = None,
        title: Optional[str] = None,
        data_origin: Optional[Mapping[str, Any]] = None,
        **unknown: Any,
    ) -> Any:
        """Trains as ``model.fit`` does in one process on the global batch.

        Args:
            model: Compiled, with a plain Keras optimizer.
            x: Array, or a list or dict of arrays, of N rows; floating ones are taken in Keras' floatx. Or
                (docs/data.md) a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of *global* batches ``(x, y)`` or
                ``(x, y, sample_weight)``; or a function ``data(shard)`` that returns a data set of the batches of one
                replica (`hpcdl.runtime.shards.Shard`).
            y: Targets of the N rows, likewise, as the losses take them: in the shapes of the outputs, or class numbers
                (N,) where a loss is sparse. None with a data set.
            sample_weight: Weights (N,) or (N, 1), or (N, T) where an output has T steps in each row, likewise; None
                with a data set.
            unnamed: Refused: Keras' batch size would stand there.
            per_replica_batch_size: Samples per replica and step; or give ``global_batch_size``. A data set has its own:
                what is given beside it must agree.
            global_batch_size: Samples per step; num_replicas must divide it.
            reference_batch_size: The batch size that the learning rate was chosen for.
            epochs: Times that each sample is seen.
            steps_per_epoch: Batches of a data set that make an epoch; None: as many as it has. Needed where it repeats
                without end.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or what ``x`` may be else.
            validation_steps: Batches of it, if it is a data set; None: as many as it has.
            lr_scaling: ``linear``, ``sqrt`` or ``none``, by global / reference batch size.
            warmup_epochs: Epochs, which may be a fraction, over which the scaling grows from 1 (Goyal et al. 2017,
                section 2.2).
            scale_epochs: Divide the epochs by num_replicas, rounded up.
            class_weight: Weight of the samples of each class number; a class that is not named has 1. Refused with
                several outputs.
            callbacks: Keras callbacks, or one alone. Those of Keras that write run on rank 0, unless they say
                ``rank_0_only = False``, and so do those that say ``rank_0_only = True``; all others on every rank
                (docs/training.md). BackupAndRestore is refused, since a run resumes by itself.
            shuffle: Take the samples in a new order in each epoch, the same in every world; of a PyDataset the batches;
                a ``tf.data.Dataset`` has its own order.
            verbose: As in Keras, on rank 0.
            checkpoint_every: Time, steps or epochs, whichever comes first, such as ``"10min,1epoch"`` (the default),
                or ``"never"``: only at the end, and when the run is stopped.
            keep_checkpoints: How many of the last ones are kept, at least 1; the best one is kept besides.
            best_by: The value in the logs by which a checkpoint is the best; None: ``val_loss``, or ``loss`` without
                validation. ``max:val_dice`` and ``min:val_dice`` say whether the greatest is the best or the least;
                without, the words of the name decide (an accuracy: the greatest), and else it is the least.
            title: What the plan and the run folder are called; None: as the script.
            data_origin: What the plan and the record say of the data: ``{"source": ...}``, and more for the record.
            unknown: Refused, in words of their own what Keras' fit takes: a bare ``batch_size`` could mean either.

        Returns:
            Keras' History, with values over all ranks, the same on each.

        Raises:
            BadInput: An argument breaks a rule, the model cannot be trained exactly, or the run folder belongs to
                another run; nothing was written.
            Diverged: Ranks hold different variables, or read different batches.
            HpcdlError: A Keras that hpcdl does not know, an iteration of a data set that ends early, a disk without
                room for the last checkpoint or the results.
            SystemExit: With status 85: the run was asked to stop, and all ranks leave in order to be started again.
        """
        from hpcdl.runtime import checks, keras_edge
        from hpcdl.runtime.best import parse_best_by
        from hpcdl.runtime.class_weights import check_class_weight
        from hpcdl.runtime.execution import Execution
        from hpcdl.runtime.fitness import check_data
        from hpcdl.runtime.fitting import Fit
        from hpcdl.runtime.identity import digest, identity
        from hpcdl.runtime.monitoring import check_watched
        from hpcdl.runtime.sources import Reader, batch_sizes, open_source, open_validation
        from hpcdl.runtime.stopping import end_time
        from hpcdl.runtime.users_callbacks import as_list

        note_use(os.environ)
        refuse_unknown(self.fit, unknown)
        refuse_unnamed(self.fit, {"y": y, "sample_weight": sample_weight}, unnamed)
        check_class_weight(class_weight)
        epochs = whole_number("epochs", epochs)
        interval = parse_interval(self._settings.checkpoint_every or checkpoint_every or "10min,1epoch")
        best = parse_best_by(best_by or ("loss" if validation_data is None else "val_loss"))
        shown = self._verbosity(verbose)
        title = title or Path(sys.argv[0]).stem or "run"
        sizes = self._bench.batches(per_replica_batch_size, global_batch_size)
        checks.check_model(model, self._replicas)
        execution = Execution(model, self._replicas, self._settings.xla)
        with self._replicas.scope():
            keras_edge.build_optimizer(model)
        said = None if sizes == (None, None) else resolve_batches(*sizes, num_replicas=self.num_replicas)
        per_replica = None if said is None else said.per_replica_batch_size
        reader = Reader(self._replicas, self.num_replicas, self.seed, per_replica)
        source = open_source(
            x, y, sample_weight, reader=reader, class_weight=class_weight, steps_per_epoch=steps_per_epoch
        )
        batches = batch_sizes(source, *sizes, reference_batch_size, self.num_replicas)
        num_samples = source.num_samples
        if self._bench.steps is not None:
            num_samples, epochs = self._bench.cut(num_samples, batches.global_batch_size)
            validation_data, scale_epochs, shown = None, False, 0
        plan = Plan(
            title=title,
            launcher=self.topology.launcher,
            world_size=self.world_size,
            num_nodes=self.topology.num_nodes,
            strategy=self.strategy,
            replicas_per_process=self.replicas_per_process,
            batches=batches,
            num_samples=num_samples,
            epochs=epochs,
            scale_epochs=scale_epochs,
            learning_rate=keras_edge.learning_rate(model.optimizer),
            lr_scaling=lr_scaling,
            warmup_epochs=warmup_number(warmup_epochs),
            data_origin=data_origin,
        )
        if self._is_plan_only:
            print(render(plan))
            raise SystemExit(EXIT_DONE)
        reader = dataclasses.replace(reader, per_replica_batch_size=batches.per_replica_batch_size)
        validation = open_validation(validation_data, reader, validation_steps)
        for read, what in ((source, "training data"), (validation, "validation data")):
            if read is not None:
                check_data(model, read.rows, what, self._replicas)
        with self._replicas.scope():
            keras_edge.build_metrics(model, source.rows)
        users = as_list(callbacks)
        if self._bench.steps is None:  # which leaves out what they may watch
            check_watched(model, users, validation is not None)
        if shown:
            print(render(plan), flush=True)
            for notice in (*execution.notices, *(best.notices(interval) if best_by else ())):
                say(notice)
        mine = identity(model, source.description, plan, self.seed, shuffle)
        self.run_dir = self._run_dir_of_next_fit(title, digest(mine)[:8])
        done = Fit(
            model=model,
            source=source,
            validation=validation,
            plan=plan,
            identity=mine,
            seed=self.seed,
            shuffle=shuffle,
            users_callbacks=users,
            verbose=shown,
            topology=self.topology,
            replicas=self._replicas,
            run_dir=self.run_dir,
            is_fresh=self._settings.fresh,
            interval=interval,
            keep_checkpoints=whole_number("keep_checkpoints", keep_checkpoints),
            best_by=best,
            execution=execution,
            signals=self._signals,
            end_time=end_time(os.environ, self._settings.end_time),
            bench=self._bench,
        ).run()
        if self._bench.steps is not None:
            # What a script does next may ask for what a benchmark leaves out, such as the values of a validation.
            raise SystemExit(EXIT_DONE)
        self.samples_per_second = done.samples_per_second
        return done.history

    def evaluate(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *unnamed: Any,
        per_replica_batch_size: Optional[int] = None,
        global_batch_size: Optional[int] = None,
        steps: Optional[int] = None,
        callbacks: Any = None,
        verbose: Any = "auto",
        return_dict: bool = False,
        **unknown: Any,
    ) -> Any:
        """Evaluates as ``model.evaluate`` does in one process; every rank calls it, and gets the same values.

        Args:
            model: Compiled, built in `scope`; the weights of rank 0 count.
            x: As for `fit`.
            y: As for `fit`.
            sample_weight: As for `fit`.
            unnamed: Refused.
            per_replica_batch_size: Samples per replica and step, by default 32; or give ``global_batch_size``.
            global_batch_size: Samples per step.
            steps: Batches of a data set that are taken; None: as many as it has.
            callbacks: Keras callbacks, or one alone; which run where, as for `fit`.
            verbose: As in Keras, on rank 0.
            return_dict: As in Keras: metrics by name, instead of a list.
            unknown: Refused.

        Returns:
            The loss and the metrics over all samples, as Keras gives them.

        Raises:
            BadInput: An argument breaks a rule, or the model cannot be evaluated exactly.
            Diverged: Ranks read different batches.
        """
        from hpcdl.runtime import checks, evaluation
        from hpcdl.runtime.fitness import check_data
        from hpcdl.runtime.users_callbacks import as_list, kept_apart, of_this_rank

        refuse_unknown(self.evaluate, unknown)
        refuse_unnamed(self.evaluate, {"y": y, "sample_weight": sample_weight}, unnamed)
        shown = self._verbosity(verbose)
        checks.check_compiled(model, self._replicas)
        note_model(model, os.environ)
        sizes = (per_replica_batch_size, global_batch_size)
        source, order = self._opened((x, y, sample_weight), sizes, steps)
        check_data(model, source.rows, "data to evaluate on", self._replicas)
        users = of_this_rank(as_list(callbacks), self.is_rank_0)
        with kept_apart(users, self._replicas):
            return evaluation.evaluate(model, source, order, self._replicas, shown, return_dict, users)

    def predict(
        self,
        model: Any,
        x: Any,
        *unnamed: Any,
        per_replica_batch_size: Optional[int] = None,
        global_batch_size: Optional[int] = None,
        steps: Optional[int] = None,
        verbose: Any = "auto",
        **unknown: Any,
    ) -> Any:
        """Predicts as ``model.predict`` does in one process; every rank calls it, and predicts its part.

        Args:
            model: Built in `scope`; the weights of rank 0 count.
            x: As for `fit`, but no function ``data(shard)``, whose rows have no order.
            unnamed: Refused.
            per_replica_batch_size: Samples per replica and step, by default 32; or give ``global_batch_size``.
            global_batch_size: Samples per step.
            steps: Batches of a data set that are taken; None: as many as it has.
            verbose: As in Keras, on rank 0.
            unknown: Refused.

        Returns:
            The outputs for all rows, in the order of the data, on rank 0; None on the others.

        Raises:
            BadInput: An argument breaks a rule.
            Diverged: Ranks read different batches.
        """
        from hpcdl.runtime import checks, evaluation
        from hpcdl.runtime.fitness import check_inputs

        refuse_unknown(self.predict, unknown)
        refuse_unnamed(self.predict, {}, unnamed)
        shown = self._verbosity(verbose)
        checks.check_keras(model)
        checks.check_place(model, self._replicas)
        note_model(model, os.environ)
        source, order = self._opened((x,), (per_replica_batch_size, global_batch_size), steps)
        if not source.has_order:
            raise BadInput(
                "predictions come in the order of the data; received a function data(shard), whose shards have none;"
                " pass arrays, a tf.data.Dataset or a keras.utils.PyDataset"
            )
        check_inputs(model, source.rows[0], "data to predict on", self._replicas)
        return evaluation.predict(model, source, order, self._replicas, shown)

    def _opened(self, data: Any, sizes: Any, steps: Optional[int]) -> Any:
        """Opens data to evaluate or to predict on, in their own order."""
        from hpcdl.runtime.feed import Order
        from hpcdl.runtime.sources import Reader, check_said_sizes, open_source

        per_replica, global_ = (32, None) if sizes == (None, None) else sizes
        batches = resolve_batches(per_replica, global_, num_replicas=self.num_replicas)
        reader = Reader(self._replicas, self.num_replicas, self.seed, batches.per_replica_batch_size)
        source = open_source(*data, reader=reader, steps_per_epoch=steps, steps_name="steps")
        check_said_sizes(source, sizes[0], sizes[1], self.num_replicas)
        return source, Order(source.num_samples, source.batch_size or batches.global_batch_size, None)

    def _verbosity(self, verbose: Any) -> int:
        """Gives what Keras shows on this rank."""
        number = verbosity(verbose)
        return number if self.is_rank_0 else 0

    def _run_dir_of_next_fit(self, title: str, digest: str) -> Path:
        """Names the folder of a fit: the first one of a script has the run's, later ones have folders in it."""
        self._num_fits += 1
        if self._base_dir is None:
            folder = re.sub(r"[^\w.]+", "-", title)
            self._base_dir = Path("runs") / f"{folder}-{digest}"
        return self._base_dir if self._num_fits == 1 else self._base_dir / f"fit-{self._num_fits}"
