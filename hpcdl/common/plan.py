"""What a run will do, worked out before it does it: world, strategy, batches, learning rate, steps.

Synopsis::

    plan = Plan(
        title="fashion_mnist/cnn_dropout", launcher="openmpi", world_size=4, num_nodes=1, strategy="horovod",
        replicas_per_process=1, batches=resolve_batches(128, num_replicas=4), num_samples=60_000, epochs=12,
        scale_epochs=False, learning_rate=0.001, lr_scaling="linear", warmup_epochs=1,
    )
    plan.total_steps                                        # 1416
    print(render(plan))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, NamedTuple, Optional

from hpcdl.common import schedule
from hpcdl.common.checks import whole_number
from hpcdl.common.errors import BadInput
from hpcdl.common.saying import count
from hpcdl.common.schedule import Batches

#: More rows than this, and those in the middle are left out.
_MOST_ROWS = 12


class Span(NamedTuple):
    """Epochs, counted from 1, with the multiplier on the learning rate in their first and last step."""

    first_epoch: int
    last_epoch: int
    start: float
    end: float


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a run does; checked when it is made.

    Attributes:
        title: What is trained.
        launcher: Who starts the processes.
        world_size: Number of processes.
        num_nodes: Number of nodes; None if the launcher does not tell.
        strategy: Name of the strategy, not ``auto``.
        replicas_per_process: Replicas in each process.
        batches: The batch sizes.
        num_samples: Samples of an epoch.
        epochs: What the user asked for, before ``scale_epochs``.
        scale_epochs: Whether the replicas share the epochs.
        learning_rate: The user's own; None if it is a schedule or not known.
        lr_scaling: One of `schedule.LR_SCALINGS`.
        warmup_epochs: Length of the learning-rate ramp.
        data_origin: Where the data came from, as the record says it; its ``source`` is for people. None: not told.
    """

    title: str
    launcher: str
    world_size: int
    num_nodes: Optional[int]
    strategy: str
    replicas_per_process: int
    batches: Batches
    num_samples: int
    epochs: int
    scale_epochs: bool
    learning_rate: Optional[float]
    lr_scaling: str
    warmup_epochs: float
    data_origin: Optional[Mapping[str, Any]] = None

    def __post_init__(self) -> None:
        for name in ("world_size", "replicas_per_process", "num_samples", "epochs"):
            whole_number(name, getattr(self, name))
        if self.world_size * self.replicas_per_process != self.batches.num_replicas:
            raise BadInput(
                "num_replicas must be world size x replicas per process; received"
                f" {self.batches.num_replicas} and {self.world_size} x {self.replicas_per_process};"
                " resolve the batch sizes for this world"
            )
        if self.batches.global_batch_size > self.num_samples:
            raise BadInput(
                "a global batch must not be larger than the data; received a global batch size of"
                f" {self.batches.global_batch_size} ({self.batches.per_replica_batch_size} per replica x"
                f" {self.batches.num_replicas}) and {self.num_samples} samples; pass a smaller batch size, or use"
                " fewer replicas"
            )
        schedule.lr_factor(self.batches, self.lr_scaling)
        schedule.warmup_steps(self.warmup_epochs, 1)

    @property
    def factor(self) -> float:
        """The factor on the learning rate after warmup."""
        return schedule.lr_factor(self.batches, self.lr_scaling)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every sample is seen once."""
        return schedule.steps_per_epoch(self.num_samples, self.batches.global_batch_size)

    @property
    def epochs_to_run(self) -> int:
        """Epochs after ``scale_epochs``."""
        if self.scale_epochs:
            return schedule.scaled_epochs(self.epochs, self.batches.num_replicas)
        return self.epochs

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.epochs_to_run

    @property
    def warmup_steps(self) -> int:
        """Steps until the learning rate has its scaled value."""
        return schedule.warmup_steps(self.warmup_epochs, self.steps_per_epoch)

    def multiplier(self, step: int) -> float:
        """Gives the multiplier on the user's learning rate in a step, counted from 0 over all epochs."""
        return schedule.warmup_multiplier(step, self.warmup_steps, self.factor)

    def spans(self) -> List[Span]:
        """Lists the epochs, those with one and the same learning rate together."""
        spans: List[Span] = []
        for epoch in range(1, self.epochs_to_run + 1):
            first = self.multiplier((epoch - 1) * self.steps_per_epoch)
            last = self.multiplier(epoch * self.steps_per_epoch - 1)
            if spans and spans[-1].start == spans[-1].end == first == last:
                spans[-1] = spans[-1]._replace(last_epoch=epoch)
            else:
                spans.append(Span(epoch, epoch, first, last))
        return spans

    def hints(self) -> List[str]:
        """Says what the user may not have meant, one line each."""
        hints = []
        f = self.batches.factor
        if self.lr_scaling == "none" and f != 1:
            hints.append(
                f"f is {f:.4g}, but lr_scaling none leaves the learning rate as it is; consider lr_scaling"
                " linear with some epochs of warmup"
            )
        if self.warmup_epochs and self.factor <= 1:
            hints.append(
                f"warmup has no effect: it slows down a rise of the learning rate, and the factor is"
                f" {self.factor:.4g}"
            )
        elif self.warmup_steps > self.total_steps:
            hints.append(
                f"the run ends before its warmup does: {self.total_steps} steps, of which the warmup needs"
                f" {self.warmup_steps}"
            )
        return hints


def render(plan: Plan) -> str:
    """Writes the plan as a table that fits on one screen."""
    batches = plan.batches
    nodes = "" if plan.num_nodes is None else f" on {count(plan.num_nodes, 'node')}"
    started = "" if plan.launcher == "none" else f", started by {plan.launcher}"
    replicas = count(plan.replicas_per_process, "replica")
    rows = [
        ("world", f"{count(plan.world_size, 'process', 'processes')}{nodes}{started}"),
        ("strategy", f"{plan.strategy}, {replicas} per process, {batches.num_replicas} in all"),
        (
            "batch size",
            f"{batches.per_replica_batch_size} per replica, {batches.global_batch_size} global,"
            f" {batches.reference_batch_size} reference",
        ),
        ("f", f"{batches.factor:.4g}; lr_scaling {plan.lr_scaling} uses {plan.factor:.4g}"),
        ("warmup", _warmup(plan)),
        ("epochs", _epochs(plan)),
        (
            "steps",
            f"{plan.steps_per_epoch} per epoch ({plan.num_samples} samples), {plan.total_steps} in all",
        ),
    ]
    if plan.data_origin is not None:
        rows.insert(0, ("data", str(plan.data_origin["source"])))
    lines = [f"plan of {plan.title}", *(f"  {name:<14}{text}" for name, text in rows)]
    what = "learning rate" if plan.learning_rate is not None else "learning rate, times your schedule's"
    lines += ["", f"  {'epoch':>9}  {what}, first step -> last step", *_rate_rows(plan)]
    lines += [f"hint: {hint}" for hint in plan.hints()]
    return "\n".join(lines)


def _warmup(plan: Plan) -> str:
    if not plan.warmup_steps:
        return "none"
    unit = "epoch" if plan.warmup_epochs == 1 else "epochs"
    return f"{plan.warmup_epochs:g} {unit} = {count(plan.warmup_steps, 'step')}"


def _epochs(plan: Plan) -> str:
    if not plan.scale_epochs:
        return str(plan.epochs)
    return f"{plan.epochs_to_run} = {plan.epochs} / {plan.batches.num_replicas} replicas, rounded up"


def _rate_rows(plan: Plan) -> List[str]:
    base = 1.0 if plan.learning_rate is None else plan.learning_rate
    rows = []
    for span in plan.spans():
        epochs = str(span.first_epoch)
        if span.last_epoch > span.first_epoch:
            epochs += f"-{span.last_epoch}"
        rates = [f"{base * span.start:.4g}"] + [f"{base * span.end:.4g}"] * (span.start != span.end)
        rows.append(f"  {epochs:>9}  {' -> '.join(rates)}")
    if len(rows) > _MOST_ROWS:
        rows[_MOST_ROWS // 2 : -_MOST_ROWS // 2 + 1] = [f"  {'...':>9}"]
    return rows
