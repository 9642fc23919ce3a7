"""The core: where am I, and one `fit` that takes the same steps in every world.

Synopsis::

    run = hpcdl.init()
    with run.scope():
        model = build()                   # any compiled Keras model, with a plain Keras optimizer
    history = run.fit(model, x_train, y_train, per_replica_batch_size=128, epochs=12,
                      validation_data=(x_test, y_test), lr_scaling="linear", warmup_epochs=1)
"""

from __future__ import annotations

import datetime
import os
import platform
import socket
import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.common.plan import Plan, render
from hpcdl.common.records import SCHEMA_VERSION, write_history, write_json
from hpcdl.common.schedule import resolve_batches
from hpcdl.common.topology import Choice, Topology, choose_strategy, read_topology
from hpcdl.common.words import RunSettings
from hpcdl.runtime.devices import pin_devices
from hpcdl.runtime.processes import Alone, HorovodProcesses
from hpcdl.runtime.replicas import Replicas


def init(
    strategy: str = "auto", replicas: Optional[int] = None, seed: int = 0, run_dir: Optional[str] = None
) -> Run:
    """Finds this process's place, pins its GPU, starts Horovod where there are several ranks, and sets all seeds.

    Options of `hpcdl train`, or HPCDL_* variables, win over these arguments where they are given.

    Args:
        strategy: ``single``, ``mirrored``, ``horovod``, ``hybrid`` or ``auto`` (the table of `choose_strategy`).
        replicas: Replicas per process; None lets the devices decide.
        seed: Of weights, data order and random layers.
        run_dir: Where the run keeps its records; None keeps none.

    Raises:
        BadInput: The strategy does not fit the world, Horovod is missing, or the world that it sees is not the one
            that the launcher started.
    """
    settings = RunSettings.from_environ(os.environ)
    topology = read_topology(os.environ, socket.gethostname())
    planned_world = os.environ.get("HPCDL_PLAN_WORLD_SIZE")

    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    world = topology if planned_world is None else _planned(topology, int(planned_world))
    choice = choose_strategy(
        settings.strategy if settings.strategy != "auto" else strategy,
        settings.replicas_per_process or replicas,
        world,
        len(gpus),
        "GPU" if gpus else "CPU",
    )
    for warning in topology.warnings:
        print(f"hpcdl: {warning}", file=sys.stderr)
    is_plan_only = planned_world is not None
    devices = ["CPU:0"] if is_plan_only else pin_devices(choice.replicas, topology.local_rank)
    processes = (
        Alone() if world.world_size == 1 or is_plan_only else _start_horovod(topology, settings.controller)
    )
    seed = settings.seed if settings.seed is not None else seed
    tf.keras.utils.set_random_seed(seed)
    if not hasattr(tf.keras, "ops"):  # Keras 2: random layers draw from generators whose state can be kept
        tf.keras.backend.experimental.enable_tf_random_generator()
    where = settings.run_dir or run_dir
    return Run(
        world, choice, Replicas(processes, devices), seed, Path(where) if where else None, is_plan_only
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


def _start_horovod(topology: Topology, controller: Optional[str]) -> HorovodProcesses:
    rendezvous_dir = os.environ.get("HPCDL_RENDEZVOUS_DIR")
    if controller != "mpi" and rendezvous_dir:
        from hpcdl.runtime.rendezvous import gloo_environ

        os.environ.update(gloo_environ(topology, rendezvous_dir))
    try:
        import horovod.tensorflow as hvd

        hvd.init()
    except ImportError as problem:
        raise BadInput(
            f"{topology.world_size} ranks need Horovod, built for this TensorFlow; received: {problem};"
            " run `hpcdl horovod install`, then `hpcdl horovod check`"
        ) from problem
    if (hvd.rank(), hvd.size()) != (topology.rank, topology.world_size):
        raise BadInput(
            f"Horovod must see the world that the launcher started; {topology.launcher} started rank {topology.rank}"
            f" of {topology.world_size}, Horovod sees rank {hvd.rank()} of {hvd.size()}; use the launcher of"
            " the MPI that Horovod was built with (`hpcdl horovod check`), or `hpcdl train --launcher gloo`"
        )
    return HorovodProcesses()


class Run:
    """One training run, as one rank sees it; made by `init`.

    Attributes:
        topology: The place of this process.
        strategy: Name of the strategy.
        num_replicas: World size x replicas per process.
        seed: Of weights, data order and random layers.
        run_dir: Where records go; None keeps none.
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
        is_plan_only: bool = False,
    ) -> None:
        self.topology = topology
        self.strategy = choice.strategy
        self.replicas_per_process = choice.replicas
        self.num_replicas = topology.world_size * choice.replicas
        self.seed = seed
        self.run_dir = run_dir
        self.samples_per_second: Optional[float] = None
        self._replicas = replicas
        self._is_plan_only = is_plan_only

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.topology.rank

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.topology.world_size

    @property
    def is_rank_0(self) -> bool:
        """Whether this is the process that writes."""
        return self.topology.is_rank_0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """The scope in which the model is built and compiled."""
        with self._replicas.scope():
            yield

    def fit(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        per_replica_batch_size: Optional[int] = None,
        global_batch_size: Optional[int] = None,
        reference_batch_size: Optional[int] = None,
        epochs: int = 1,
        validation_data: Optional[Sequence[Any]] = None,
        lr_scaling: str = "none",
        warmup_epochs: float = 0,
        scale_epochs: bool = False,
        class_weight: Optional[Mapping[int, float]] = None,
        callbacks: Sequence[Any] = (),
        shuffle: bool = True,
        verbose: Any = "auto",
        title: str = "model.fit",
        batch_size: None = None,
    ) -> Any:
        """Trains as ``model.fit`` does in one process on the global batch.

        Args:
            model: Compiled, with a plain Keras optimizer.
            x: Array, or a list or dict of arrays, of N rows.
            y: Targets, likewise.
            sample_weight: N weights.
            per_replica_batch_size: Samples per replica and step; or give ``global_batch_size``.
            global_batch_size: Samples per step; num_replicas must divide it.
            reference_batch_size: The batch size that the learning rate was chosen for.
            epochs: Times that each sample is seen.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``.
            lr_scaling: ``linear``, ``sqrt`` or ``none``, by global / reference batch size.
            warmup_epochs: Epochs over which the scaling grows from 1 (Goyal et al. 2017, section 2.2).
            scale_epochs: Divide the epochs by num_replicas, rounded up.
            class_weight: Weight of the samples of each class; a class that is not named has 1.
            callbacks: Keras callbacks; each runs on every rank.
            shuffle: Take the samples in a new order in each epoch, the same in every world.
            verbose: As in Keras, on rank 0.
            title: What the plan calls this run.
            batch_size: Refused, since it could mean either of the two.

        Returns:
            Keras' History, with values over all ranks, the same on each.

        Raises:
            BadInput: An argument breaks a rule, or the model cannot be trained exactly; nothing was written.
            Diverged: Ranks hold different variables.
        """
        from hpcdl.runtime import checks, keras_edge

        if batch_size is not None:
            raise BadInput(
                f"a batch size must say of what; received batch_size={batch_size}; pass"
                f" per_replica_batch_size={batch_size}, or global_batch_size for the samples of a whole step"
            )
        batches = resolve_batches(
            per_replica_batch_size, global_batch_size, reference_batch_size, num_replicas=self.num_replicas
        )
        checks.check_model(model, self._replicas)
        with self._replicas.scope():
            keras_edge.build_optimizer(model)
        data, num_samples = checks.nest_of_arrays(
            (x, y, checks.with_class_weight(class_weight, y, sample_weight))
        )
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
            learning_rate=checks.learning_rate(model),
            lr_scaling=lr_scaling,
            warmup_epochs=warmup_epochs,
        )
        if self._is_plan_only:
            print(render(plan))
            raise SystemExit(0)
        validation = checks.nest_of_arrays(tuple(validation_data)) if validation_data is not None else None
        if self.is_rank_0 and verbose != 0:
            print(render(plan), flush=True)
        self._check_agreement(model, plan)
        record = self._begin_record(plan, model)
        history, epoch_seconds = self._steps(model, data, validation, plan, shuffle, callbacks, verbose)
        self._end_record(record, history, epoch_seconds, plan)
        return history

    def _steps(
        self,
        model: Any,
        data: Any,
        validation: Optional[Tuple[Any, int]],
        plan: Plan,
        shuffle: bool,
        callbacks: Sequence[Any],
        verbose: Any,
    ) -> Tuple[Any, Any]:
        import tensorflow as tf

        from hpcdl.runtime import keras_edge, steps
        from hpcdl.runtime.feed import Order, feed
        from hpcdl.runtime.following import Following
        from hpcdl.runtime.rates import scaled_rate

        order = Order(plan.num_samples, plan.batches.global_batch_size, self.seed if shuffle else None)
        fit_arguments: Dict[str, Any] = {}
        validation_steps = 0
        if validation is not None:
            validation_order = Order(validation[1], plan.batches.global_batch_size, None)
            validation_steps = validation_order.steps_per_epoch
            fit_arguments = {
                "validation_data": feed(validation[0], validation_order, self._replicas, epochs=None),
                "validation_steps": validation_steps,
            }
        with self._replicas.scope():
            keras_edge.build_metrics(model, tf.nest.map_structure(lambda a: tf.constant(a[:1]), data))
        self._replicas.broadcast(keras_edge.synchronized_variables(model))
        self._replicas.broadcast(keras_edge.non_trainable_variables(model))
        steps.split_seeds(model, self.seed, self._replicas)
        with scaled_rate(model.optimizer, plan), steps.exact_steps(model, self._replicas) as hook:
            following = Following(self._replicas, hook, plan, validation_steps)
            history = model.fit(
                feed(data, order, self._replicas, epochs=plan.epochs_to_run),
                epochs=plan.epochs_to_run,
                steps_per_epoch=plan.steps_per_epoch,
                callbacks=[following, *callbacks],
                verbose=verbose if self.is_rank_0 else 0,
                shuffle=False,  # the feed does
                **fit_arguments,
            )
        return history, following.epoch_seconds

    def _check_agreement(self, model: Any, plan: Plan) -> None:
        """Stops ranks that would take different steps, before one of them waits for the others for ever."""
        mine = {"plan": repr(plan), "shapes": [[v.name, list(v.shape)] for v in model.trainable_variables]}
        ranks = self._replicas.processes.gather_json(mine)
        for rank, other in enumerate(ranks):
            for what in mine:
                if other[what] != ranks[0][what]:
                    raise BadInput(
                        f"all ranks must run the same {what}; received {str(ranks[0][what])[:200]} on rank 0 and"
                        f" {str(other[what])[:200]} on rank {rank}; start all ranks with the same"
                        " script, arguments and data"
                    )

    def _begin_record(self, plan: Plan, model: Any) -> Dict[str, Any]:
        import tensorflow as tf

        record = {
            "schema_version": SCHEMA_VERSION,
            "status": "running",
            "title": plan.title,
            "started": _now(),
            "topology": {
                "launcher": plan.launcher,
                "world_size": plan.world_size,
                "num_nodes": plan.num_nodes,
                "hostname": self.topology.hostname,
            },
            "config": {
                "strategy": plan.strategy,
                "replicas_per_process": plan.replicas_per_process,
                "per_replica_batch_size": plan.batches.per_replica_batch_size,
                "global_batch_size": plan.batches.global_batch_size,
                "num_samples": plan.num_samples,
                "epochs": plan.epochs_to_run,
                "learning_rate": plan.learning_rate,
                "lr_scaling": plan.lr_scaling,
                "lr_factor": plan.factor,
                "warmup_epochs": plan.warmup_epochs,
                "seed": self.seed,
                "optimizer": type(model.optimizer).__name__,
                "num_parameters": model.count_params(),
            },
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": metadata.version("keras"),
                "numpy": np.__version__,
            },
            "host_load_at_start": os.getloadavg()[0],
        }
        if self.is_rank_0 and self.run_dir is not None:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(self.run_dir / "run.json", record)
        return record

    def _end_record(
        self, record: Dict[str, Any], history: Any, epoch_seconds: Sequence[float], plan: Plan
    ) -> None:
        slowest = self._replicas.processes.gather(np.asarray(epoch_seconds)).max(axis=0)
        self.samples_per_second = float(
            plan.num_samples / np.median(slowest[1:] if len(slowest) > 1 else slowest)
        )
        values = {name: [float(v) for v in of_epochs] for name, of_epochs in history.history.items()}
        record.update(
            status="done",
            ended=_now(),
            epoch_seconds=[float(s) for s in slowest],
            samples_per_second=self.samples_per_second,
            final_metrics={name: of_epochs[-1] for name, of_epochs in values.items()},
        )
        if self.is_rank_0 and self.run_dir is not None:
            write_history(self.run_dir / "history.csv", values)
            write_json(self.run_dir / "run.json", record)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
