"""What a run will do: the numbers of the plan, and the table that shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.plan import Plan, render
from hpcdl.common.schedule import resolve_batches

PLAN = Plan(
    title="fashion_mnist/cnn_dropout",
    launcher="srun",
    world_size=4,
    num_nodes=2,
    strategy="hybrid",
    replicas_per_process=2,
    batches=resolve_batches(per_replica=128, num_replicas=8),
    num_samples=60_000,
    epochs=12,
    scale_epochs=False,
    learning_rate=0.001,
    lr_scaling="linear",
    warmup_epochs=1,
)

RENDERED = """\
plan of fashion_mnist/cnn_dropout
  world         4 processes on 2 nodes, started by srun
  strategy      hybrid, 2 replicas per process, 8 in all
  batch size    128 per replica, 1024 global, 128 reference
  f             8; lr_scaling linear uses 8
  warmup        1 epoch = 59 steps
  epochs        12
  steps         59 per epoch (60000 samples), 708 in all

      epoch  learning rate, first step -> last step
          1  0.001 -> 0.007881
       2-12  0.008"""


def test_the_table_is_this_one() -> None:
    assert render(PLAN) == RENDERED


def test_the_numbers_of_the_plan() -> None:
    assert (PLAN.factor, PLAN.steps_per_epoch, PLAN.epochs_to_run) == (8, 59, 12)
    assert (PLAN.warmup_steps, PLAN.total_steps) == (59, 708)


def test_scaled_epochs_are_shared_by_the_replicas_and_said() -> None:
    plan = replace(PLAN, scale_epochs=True)
    assert (plan.epochs_to_run, plan.total_steps) == (2, 118)
    assert "2 = 12 / 8 replicas, rounded up" in render(plan)


def test_spans_cover_every_epoch_once_and_agree_with_the_steps() -> None:
    plan = replace(PLAN, warmup_epochs=2.5, epochs=7)
    spans = plan.spans()
    assert [epoch for span in spans for epoch in range(span.first_epoch, span.last_epoch + 1)] == [
        *range(1, 8)
    ]
    for span in spans:
        assert span.start == plan.multiplier((span.first_epoch - 1) * plan.steps_per_epoch)
        assert span.end == plan.multiplier(span.last_epoch * plan.steps_per_epoch - 1)
    assert spans[-1] == (4, 7, 8, 8)


def test_a_schedule_of_the_user_is_shown_as_its_multiplier() -> None:
    text = render(replace(PLAN, learning_rate=None))
    assert "learning rate, times your schedule's" in text
    assert "1 -> 7.881" in text


def test_a_long_warmup_fits_on_one_screen_with_both_ends() -> None:
    lines = render(replace(PLAN, warmup_epochs=300, epochs=1000)).splitlines()
    assert len(lines) <= 24
    assert "         1  0.001 ->" in "\n".join(lines)
    assert "   301-1000  0.008" in lines
    assert "        ..." in lines


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"lr_scaling": "none", "warmup_epochs": 0}, "f is 8, but lr_scaling none leaves the learning rate"),
        ({"lr_scaling": "none"}, "warmup has no effect"),
        (
            {"warmup_epochs": 13},
            "the run ends before its warmup does: 708 steps, of which the warmup needs 767",
        ),
    ],
)
def test_what_the_user_may_not_have_meant_is_a_hint(change: Dict[str, Any], hint: str) -> None:
    plan = replace(PLAN, **change)
    assert any(line.startswith(hint) for line in plan.hints())
    assert f"hint: {hint}" in render(plan)


@pytest.mark.parametrize("lr_scaling", ["linear", "none"])
def test_a_plan_that_means_what_it_says_has_no_hint(lr_scaling: str) -> None:
    batches = resolve_batches(global_=1024, num_replicas=8)
    plan = replace(PLAN, batches=batches, lr_scaling=lr_scaling, warmup_epochs=0)
    assert plan.hints() == []
    assert PLAN.hints() == []


def test_what_the_launcher_does_not_tell_is_left_out() -> None:
    text = render(replace(PLAN, num_nodes=None, launcher="none"))
    assert "  world         4 processes\n" in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"world_size": 3}, "received 8 and 3 x 2"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"num_samples": 0}, "num_samples"),
        ({"lr_scaling": "linaer"}, "did you mean linear"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
    ],
)
def test_an_impossible_plan_cannot_be_made(change: Dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        replace(PLAN, **change)
    assert named in str(caught.value)
