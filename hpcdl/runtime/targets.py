"""What ``hpcdl train`` trains without a script: a ready workload, or a model and data from a user's own functions.

``hpcdl train my_module:build --data my_module:data`` calls ``build()``, inside the run's scope, for a compiled Keras
model, and ``data()`` for ``((x_train, y_train), (x_test, y_test))``, which is what the functions of
``tf.keras.datasets`` return. A part may have sample weights as a third member, or be what `Run.fit` takes else: a data
set of global batches, or a function of a shard; the test part may be None. Where the user does not say otherwise, it
takes what ``model.fit`` takes: one epoch, and of arrays 32 samples per replica.

Synopsis::

    target = of_workload("mnist/fc64", data_dir=None)       # or of_functions("my_module:build", "my_module:data")
    run = hpcdl.init()
    train(run, target, command.options, command.settings.precision)
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import BadInput
from hpcdl.common.saying import rate
from hpcdl.common.targets import check_module, near, no_module
from hpcdl.common.words import WorkloadOptions
from hpcdl.common.workloads import SYNTHETIC
from hpcdl.runtime import workloads
from hpcdl.runtime.keras_edge import learning_rate_variable, set_precision
from hpcdl.runtime.sources import gives_batches

#: What plain Keras does where nothing is said.
_KERAS_BATCH_SIZE = 32


class Data(NamedTuple):
    """Parts of data, each ``(x, y)`` or ``(x, y, sample_weight)``, or ``(x,)`` where that holds all of it.

    Besides where they came from, and more for the record.
    """

    train: Tuple[Any, ...]
    test: Optional[Tuple[Any, ...]]
    source: str
    details: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Target:
    """Something to train.

    Attributes:
        name: For people and for the run's folder.
        build: ``build(learning_rate)`` gives a compiled model; None leaves the rate as it is.
        data: ``data(dtype, least_rows)`` gives the data, floats of that dtype; made-up ones with at least as many rows.
        epochs, per_replica_batch_size, lr_scaling, warmup_epochs: Where the user says nothing.
        reference_batch_size: That its learning rate was chosen for; None: the batch size that the user gives.
    """

    name: str
    build: Callable[[Optional[float]], Any]
    data: Callable[[str, int], Data]
    epochs: int = 1
    per_replica_batch_size: int = _KERAS_BATCH_SIZE
    lr_scaling: str = "none"
    warmup_epochs: float = 0
    reference_batch_size: Optional[int] = None


def of_workload(name: str, data_dir: Optional[str]) -> Target:
    """Makes a target of a ready workload; BadInput with near names if there is none."""
    workload = workloads.get(name)

    def data(dtype: str, least_rows: int) -> Data:
        stored = workload.load(data_dir, least_rows)
        arrays = workload.arrays(stored, dtype)
        is_synthetic = workload.facts.data == SYNTHETIC
        return Data(
            (arrays.x_train, arrays.y_train),
            (arrays.x_test, arrays.y_test),
            f"{stored.name}: {stored.source}" if is_synthetic else f"{stored.name} from {stored.source}",
            {"name": stored.name, "is_synthetic": is_synthetic, "sha256": dict(stored.sha256)},
        )

    recommended = workload.facts.recommended
    return Target(
        name,
        lambda learning_rate: workload.build(learning_rate=learning_rate),
        data,
        recommended.epochs,
        recommended.per_replica_batch_size,
        recommended.lr_scaling,
        recommended.warmup_epochs,
        recommended.per_replica_batch_size,
    )


def of_functions(build: str, data: str) -> Target:
    """Makes a target of two functions, written ``module:function``; the modules are imported now.

    Raises:
        BadInput: A module or function does not exist, or needs arguments.
    """
    make_model, make_data = load_function("TARGET", build), load_function("--data", data)

    def built(learning_rate: Optional[float]) -> Any:
        model = make_model()
        if getattr(model, "optimizer", None) is None:
            raise BadInput(
                f"{build} must return a compiled Keras model; received {_describe(model)};"
                " call model.compile(...) in it, and return the model"
            )
        if learning_rate is not None:
            _set_learning_rate(model, learning_rate)
        return model

    return Target(build, built, lambda dtype, least_rows: _parts(data, make_data()))


def load_function(what: str, name: str) -> Callable[[], Any]:
    """Imports the function that ``module:function`` names, from the working folder too.

    Args:
        what: The word that the user wrote it for, for messages.
        name: ``module:function``; either may be dotted.

    Raises:
        BadInput: There is no such module, or no such function in it (near names are listed), or it needs arguments.
    """
    check_module(what, name)
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        missing = problem.name or ""
        if module_name != missing and not module_name.startswith(missing + "."):
            raise  # the module is there; what it imports is not
        package = sys.modules.get(missing.rpartition(".")[0])
        raise no_module(what, name, missing, getattr(package, "__path__", [])) from problem
    for attribute in path.split("."):
        holder, found = found, getattr(found, attribute, None)
        if found is None:
            names = [name for name in vars(holder) if not name.startswith("_")]
            functions = [name for name in names if callable(getattr(holder, name))]
            raise BadInput(
                f"{what} must name a function that exists; received {name!r}, and {module_name} has no"
                f" {attribute!r}; {near(attribute, functions)}"
            )
    if not callable(found):
        raise BadInput(
            f"{what} must name a function; received {name!r}, which is {_describe(found)}; name a function"
        )
    _check_needs_nothing(what, name, found)
    return found


def train(run: Any, target: Target, options: WorkloadOptions, precision: Optional[str]) -> None:
    """Trains a target and prints its result.

    Args:
        run: From `hpcdl.init`.
        target: What to train.
        options: What the user said.
        precision: Likewise; `hpcdl.init` has set it, but the module of a function may have made it another.
    """
    import tensorflow as tf

    if precision is not None:
        set_precision(precision)
    per_replica = options.per_replica_batch_size
    is_said = per_replica is not None or options.global_batch_size is not None
    if not is_said:
        per_replica = target.per_replica_batch_size
    data = target.data(
        tf.keras.backend.floatx(), _global_batch_size(run, per_replica, options.global_batch_size)
    )
    if len(data.train) == 1 and not is_said:
        per_replica = None  # the data have batches
    with run.scope():
        model = target.build(options.learning_rate)
    history = run.fit(
        model,
        *data.train,
        per_replica_batch_size=per_replica,
        global_batch_size=options.global_batch_size,
        reference_batch_size=options.reference_batch_size or target.reference_batch_size,
        epochs=options.epochs or target.epochs,
        validation_data=data.test,
        lr_scaling=options.lr_scaling or target.lr_scaling,
        warmup_epochs=target.warmup_epochs if options.warmup_epochs is None else options.warmup_epochs,
        scale_epochs=options.scale_epochs,
        title=target.name,
        data_origin={"source": data.source, **data.details},
    )
    if run.is_rank_0:
        print(f"{target.name} on {data.source}")
        speed = "" if run.samples_per_second is None else f", {rate(run.samples_per_second)} samples/s"
        print(f"{final_metrics(history.rows[-1])}{speed}")
        print(f"record: {run.run_dir}/run.json")


def _global_batch_size(run: Any, per_replica: Optional[int], global_: Optional[int]) -> int:
    """Gives the samples of a step, as `Run.fit` will take them, before the data are there."""
    per_replica, global_ = BenchSettings.from_environ(os.environ).batches(per_replica, global_)
    return global_ or (per_replica or 1) * run.num_replicas


def final_metrics(values: Mapping[str, Any]) -> str:
    """Writes the metrics of an epoch: those of the test data, or of training where there were none.

    Accuracies are in percent, and a loss is left out where there is another metric. Of a metric with several values it
    is their mean, as on Keras' progress bar.
    """
    last = {name: np.mean(value) for name, value in values.items() if not name.startswith("learning_rate")}
    test = {name[len("val_") :]: value for name, value in last.items() if name.startswith("val_")}
    kind, values = ("test", test) if test else ("training", last)
    told = {name: value for name, value in values.items() if name != "loss"} or values
    return ", ".join(
        f"{kind} {name.replace('_', ' ')} {100 * value:.2f} %"
        if "accuracy" in name
        else f"{kind} {name} {value:.4g}"
        for name, value in told.items()
    )


def _parts(name: str, made: Any) -> Data:
    """Reads what a user's data function returned."""
    rule = f"{name} must return ((x_train, y_train), (x_test, y_test)); received"
    way_out = (
        "a part may have sample weights as a third member, or be a data set or a function of a shard, and the test part"
        " may be None"
    )
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise BadInput(f"{rule} {_describe(made)}; {way_out}")
    parts: List[Any] = []
    for which, part in zip(("train", "test"), made):
        if isinstance(part, (tuple, list)) and len(part) in (2, 3):
            parts.append(tuple(part))
        elif gives_batches(part):
            parts.append((part,))
        elif which == "test" and part is None:
            parts.append(None)
        else:
            raise BadInput(f"{rule} {_describe(part)} as its {which} part; {way_out}")
    train, test = parts
    return Data(train, test, name)


def _check_needs_nothing(what: str, name: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in: it will say so itself
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if needed:
        raise BadInput(
            f"{what} must name a function that takes no arguments; {name} needs {', '.join(needed)};"
            " give them defaults, or write a script of three lines"
        )


def _set_learning_rate(model: Any, learning_rate: float) -> None:
    variable = learning_rate_variable(model.optimizer)
    if variable is None:
        raise BadInput(
            f"--learning-rate sets a number; received {learning_rate:g} for an optimizer with a schedule;"
            " leave it out, or change the schedule"
        )
    variable.assign(learning_rate)


def _describe(value: Any) -> str:
    if value is None:
        return "None"
    return type(value).__name__ + (f" of {len(value)}" if isinstance(value, (tuple, list, dict)) else "")
