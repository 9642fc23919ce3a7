"""What a fit reads: arrays, a ``tf.data.Dataset``, a ``PyDataset``, or a function that gives each replica its own part.

All have one interface, so that nothing else asks what the data are.

Synopsis::

    source = open_source(x, y, None, reader=Reader(replicas, num_replicas=4, seed=0))
    batches = batch_sizes(source, per_replica=None, global_=None, reference=None, num_replicas=4)
    order = Order(source.num_samples, batches.global_batch_size, seed=0)
    elements = source.feed(order, replicas, epochs=12, first_step=0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ContextManager, Dict, List, Mapping, Optional, Protocol

import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.schedule import Batches, resolve_batches
from hpcdl.runtime.feed import Arrays, Order
from hpcdl.runtime.nests import nest_of_arrays
from hpcdl.runtime.pipelines import Pipeline
from hpcdl.runtime.replicas import Replicas
from hpcdl.runtime.sequences import Items
from hpcdl.runtime.shards import KINDS, Shards


class Source(Protocol):
    """The interface of `Arrays`, `Pipeline`, `Items` and `Shards`.

    Attributes:
        rows: ``(x, y, sample_weight)`` as arrays, without Nones at the end: all of them, or a first batch.
        has_order: Whether its rows have an order that is the same in every world.
        num_samples: Of an epoch; of data in batches, whose last one may be smaller, that many batches.
        spec: Shapes and dtypes, as JSON.
        description: What tells the data from others, as JSON, the same on all ranks.
    """

    rows: Any
    has_order: bool
    num_samples: int
    spec: Any
    description: Any

    @property
    def batch_size(self) -> Optional[int]:
        """Global batch size of the data; None: the fit decides."""

    def feed(
        self, order: Order, replicas: Replicas, epochs: Optional[int], first_step: int = 0, mark: Any = None
    ) -> Any:
        """Makes the data set of this process.

        Args:
            order: Steps of an epoch, and the seed of an order that hpcdl decides on.
            replicas: Of the run.
            epochs: Of the run; None: one, which each evaluation reads anew, and no further than its end: how far
                it is read ahead differs between ranks, and may decide what a shuffle gives the next time.
            first_step: Steps of the whole run that are left out.
            mark: What `mark` gave when they were done.

        Returns:
            An `Element` for each local replica and step.
        """

    def mark(self, steps_done: int) -> Any:
        """Gives, as JSON, what tells whether the data of a later start come in the order of this one."""

    def callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Gives the callbacks that a fit on it takes, on every rank."""

    def test_callbacks(self, order: Order, replicas: Replicas) -> List[Any]:
        """Likewise those of a validation, an evaluation or a prediction on it."""

    def explained(self) -> ContextManager[None]:
        """Makes one line of what reading may raise during the fit."""


@dataclass(frozen=True)
class Reader:
    """Who reads.

    Attributes:
        replicas: Of the run.
        num_replicas: Of the run, or of the one that is planned.
        seed: Of the run.
        per_replica_batch_size: What the user said, if anything.
    """

    replicas: Replicas
    num_replicas: int
    seed: int
    per_replica_batch_size: Optional[int] = None


def open_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    reader: Reader,
    what: str = "x",
    class_weight: Optional[Mapping[int, float]] = None,
    steps_per_epoch: Optional[int] = None,
    steps_name: str = "steps_per_epoch",
) -> Source:
    """Makes a source of what the user passed; all ranks do so together.

    Args:
        x, y, sample_weight, class_weight, steps_per_epoch: As for `hpcdl.runtime.training.Run.fit`.
        reader: Who reads.
        what: The word that the user wrote ``x`` for, for messages.
        steps_name: Likewise for ``steps_per_epoch``.

    Raises:
        BadInput: It is nothing that can be read, by rules that the message says.
    """
    if gives_batches(x):
        if y is not None or sample_weight is not None:
            raise BadInput(
                f"a data set gives (x, y) or (x, y, sample_weight) itself; received {type(x).__name__} and y or"
                " sample_weight beside it; put them into its elements"
            )
        arguments: Dict[str, Any] = {
            "what": what,
            "class_weight": class_weight,
            "steps_per_epoch": steps_per_epoch,
        }
        if isinstance(x, tf.data.Dataset):
            return Pipeline(x, reader.replicas, **arguments)
        if isinstance(x, tf.keras.utils.Sequence):
            return Items(x, reader.replicas, **arguments)
        size = reader.per_replica_batch_size
        return Shards(x, reader.replicas, reader.num_replicas, size, reader.seed, **arguments)
    if hasattr(x, "__next__") or isinstance(x, tf.distribute.DistributedDataset):
        raise BadInput(
            f"{what} must be arrays, {KINDS}; received {type(x).__name__}, which is read once, and cannot be divided;"
            " pass tf.data.Dataset.from_generator(...) of global batches, or the plain data set"
        )
    if steps_per_epoch is not None:
        raise BadInput(
            f"{steps_name} counts batches of a data set; received {steps_name}={steps_per_epoch} with arrays as {what},"
            " all of which are taken; leave it out, or pass fewer rows"
        )
    return Arrays(*nest_of_arrays((x, y, sample_weight), class_weight))


def gives_batches(x: Any) -> bool:
    """Whether it is a data set, or a function that gives one, which holds y and sample weights, too."""
    if isinstance(x, (tf.data.Dataset, tf.keras.utils.Sequence)):
        return True
    return callable(x) and not hasattr(x, "__array__")


def open_validation(data: Any, reader: Reader, steps: Optional[int]) -> Optional[Source]:
    """Makes a source of validation data; None of None."""
    if data is None:
        return None
    parts = tuple(data) if isinstance(data, (tuple, list)) else (data,)
    if not 1 <= len(parts) <= 3:
        raise BadInput(
            "validation_data must be (x, y), (x, y, sample_weight) or a data set; received"
            f" {len(parts)} parts; put several inputs into one list or dict, or pass None"
        )
    return open_source(
        *parts, reader=reader, what="validation_data", steps_per_epoch=steps, steps_name="validation_steps"
    )


def batch_sizes(
    source: Source,
    per_replica: Optional[int],
    global_: Optional[int],
    reference: Optional[int],
    num_replicas: int,
) -> Batches:
    """Gives the batch sizes of a fit: those that the user said, or those of the data.

    Raises:
        BadInput: They are not those of the data, or the replicas cannot share a batch evenly.
    """
    size = source.batch_size
    if size is None:
        return resolve_batches(per_replica, global_, reference, num_replicas=num_replicas)
    if size % num_replicas:
        down = size // num_replicas * num_replicas
        near = f"{down} or {down + num_replicas}" if down else str(num_replicas)
        raise BadInput(
            f"num_replicas must divide the batches of the data set; received batches of {size} and {num_replicas}"
            f" replicas; batch by e.g. {near}: the data set has global batches, of which each replica takes its part"
        )
    check_said_sizes(source, per_replica, global_, num_replicas)
    return resolve_batches(
        per_replica, size if per_replica is None else None, reference, num_replicas=num_replicas
    )


def check_said_sizes(
    source: Source, per_replica: Optional[int], global_: Optional[int], num_replicas: int
) -> None:
    """Refuses batch sizes that are not those of data which have their own.

    Raises:
        BadInput: They are not.
    """
    size = source.batch_size
    said = global_ if per_replica is None else per_replica * num_replicas
    if size is not None and said is not None and said != size:
        raise BadInput(
            f"a data set of batches has the global batch size of its batches, here {size}; received"
            + (
                f" global_batch_size={global_}"
                if per_replica is None
                else f" per_replica_batch_size={per_replica}"
            )
            + f" for {num_replicas} replicas; leave the batch sizes out, or batch the data set by {said}"
        )
