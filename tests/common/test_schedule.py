"""Batch sizes, learning-rate factor, warmup, epochs and steps: the arithmetic that every strategy shares."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Dict, Optional

import numpy as np
import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.schedule import (
    Batches,
    Interval,
    lr_factor,
    parse_interval,
    resolve_batches,
    scaled_epochs,
    share,
    steps_per_epoch,
    warmup_multiplier,
    warmup_number,
    warmup_steps,
)


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 8])
def test_a_per_replica_batch_size_is_its_own_reference(num_replicas: int) -> None:
    batches = resolve_batches(per_replica=128, num_replicas=num_replicas)
    assert batches == Batches(128, 128 * num_replicas, 128, num_replicas)
    assert batches.factor == num_replicas


@pytest.mark.parametrize("num_replicas", [1, 2, 4, 8])
def test_a_global_batch_size_keeps_the_learning_rate_in_every_world(num_replicas: int) -> None:
    batches = resolve_batches(global_=256, num_replicas=num_replicas)
    assert batches == Batches(256 // num_replicas, 256, 256, num_replicas)
    assert batches.factor == 1


@pytest.mark.parametrize("given", [{"per_replica": 64}, {"global_": 512}])
def test_a_reference_decides_the_factor(given: Dict[str, int]) -> None:
    batches = resolve_batches(reference=256, num_replicas=8, **given)
    assert (batches.global_batch_size, batches.factor) == (512, 2)


@pytest.mark.parametrize(
    ("per_replica", "global_", "reference", "num_replicas", "named"),
    [
        (None, None, None, 2, "received neither"),
        (32, 64, None, 2, "received both (32 and 64)"),
        (None, 100, None, 8, "pass e.g. 96 or 104"),
        (None, 3, None, 8, "pass e.g. 8,"),
        (0, None, None, 2, "per_replica_batch_size must be a whole number >= 1; received 0"),
        (-1, None, None, 2, "received -1"),
        (None, 2.5, None, 2, "global_batch_size must be a whole number >= 1; received 2.5"),
        (None, "64", None, 2, "received '64'"),
        (True, None, None, 2, "received True"),
        (32, None, 0, 2, "reference_batch_size"),
        (32, None, None, 0, "num_replicas"),
    ],
)
def test_batch_sizes_that_mean_nothing_are_refused(
    per_replica: Any, global_: Any, reference: Any, num_replicas: int, named: str
) -> None:
    with pytest.raises(BadInput) as caught:
        resolve_batches(per_replica, global_, reference, num_replicas=num_replicas)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_batches_that_do_not_multiply_cannot_be_made() -> None:
    with pytest.raises(BadInput, match="per_replica_batch_size x num_replicas"):
        Batches(128, 500, 128, 4)


def test_integers_of_other_libraries_are_whole_numbers() -> None:
    class Int64:
        def __index__(self) -> int:
            return 32

    assert resolve_batches(per_replica=Int64(), num_replicas=2).global_batch_size == 64  # type: ignore[arg-type]


@pytest.mark.parametrize(("lr_scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_scaling_rules(lr_scaling: str, factor: float) -> None:
    assert lr_factor(resolve_batches(per_replica=64, num_replicas=4), lr_scaling) == factor


def test_linear_scaling_is_that_of_goyal_et_al() -> None:
    # ResNet-50: learning rate 0.1 for a batch of 256; with 8192 samples (256 x 32) it is 3.2.
    batches = resolve_batches(per_replica=32, reference=256, num_replicas=256)
    assert 0.1 * lr_factor(batches, "linear") == pytest.approx(3.2)


def test_an_unknown_scaling_lists_near_names() -> None:
    with pytest.raises(BadInput, match="did you mean linear"):
        lr_factor(resolve_batches(per_replica=64, num_replicas=4), "liner")


def test_steps_per_epoch_see_every_sample_once() -> None:
    for num_samples in range(1, 40):
        for batch in range(1, 12):
            steps = steps_per_epoch(num_samples, batch)
            assert (steps - 1) * batch < num_samples <= steps * batch


def test_scaled_epochs_are_rounded_up() -> None:
    assert [scaled_epochs(12, n) for n in (1, 2, 5, 8, 12, 100)] == [12, 6, 3, 2, 1, 1]


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (1, 59), (5, 295), (0.5, 30), (0.1, 6)])
def test_warmup_steps_are_the_nearest_number(epochs: float, steps: int) -> None:
    assert warmup_steps(epochs, 59) == steps


@pytest.mark.parametrize("epochs", [1, 0.5, np.int64(1), np.float32(0.5)])
def test_warmup_epochs_of_numpy_are_taken_as_pythons(epochs: Any) -> None:
    number = warmup_number(epochs)
    assert number == epochs
    assert type(number) in (int, float)  # JSON knows no others


@pytest.mark.parametrize("epochs", [-1, math.nan, math.inf, "1", None, True])
def test_warmup_epochs_are_a_number(epochs: Any) -> None:
    with pytest.raises(BadInput, match="warmup_epochs"):
        warmup_steps(epochs, 59)


@pytest.mark.parametrize("factor", [1.5, 2, 8, 31.25])
def test_warmup_starts_at_the_users_rate_and_rises_by_equal_amounts(factor: float) -> None:
    ramp = [warmup_multiplier(step, 10, factor) for step in range(13)]
    rises = [later - earlier for earlier, later in zip(ramp, ramp[1:])]
    assert ramp[0] == 1
    assert rises[:10] == pytest.approx([(factor - 1) / 10] * 10)
    assert ramp[10:] == [factor] * 3


def test_warmup_of_goyal_et_al_reaches_the_scaled_rate_after_5_epochs() -> None:
    steps = steps_per_epoch(1_281_167, 8192)
    ramp = warmup_steps(5, steps)
    rates = [0.1 * warmup_multiplier(step, ramp, 32) for step in (0, ramp // 2, ramp)]
    assert rates == pytest.approx([0.1, 1.65, 3.2], abs=0.005)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_rate_that_does_not_rise_needs_no_warmup(factor: float) -> None:
    assert {warmup_multiplier(step, 10, factor) for step in range(20)} == {factor}


def test_without_warmup_the_factor_holds_from_the_first_step_on() -> None:
    assert warmup_multiplier(0, 0, 8.0) == 8.0


def test_shares_are_contiguous_equal_up_to_one_and_lose_nothing() -> None:
    for num_samples in range(40):
        for num_replicas in range(1, 9):
            found = [share(num_samples, replica, num_replicas) for replica in range(num_replicas)]
            sizes = [size for _, size in found]
            assert [first for first, _ in found] == [sum(sizes[:replica]) for replica in range(num_replicas)]
            assert sum(sizes) == num_samples
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[0] - sizes[-1] <= 1


def test_a_batch_smaller_than_the_replicas_leaves_empty_shares() -> None:
    assert [share(2, replica, 4) for replica in range(4)] == [(0, 1), (1, 1), (2, 0), (2, 0)]


@pytest.mark.parametrize(
    ("text", "seconds", "steps", "epochs"),
    [
        ("10min", 600, None, None),
        ("30s", 30, None, None),
        ("2h", 7200, None, None),
        ("1.5h", 5400, None, None),
        ("1d", 86400, None, None),
        ("500steps", None, 500, None),
        ("1step", None, 1, None),
        ("1epoch", None, None, 1),
        ("3 epochs", None, None, 3),
        ("10min,1epoch", 600, None, 1),
        ("1epoch, 500steps,30s", 30, 500, 1),
        ("never", None, None, None),
    ],
)
def test_intervals(text: str, seconds: Optional[float], steps: Optional[int], epochs: Optional[int]) -> None:
    assert parse_interval(text) == Interval(seconds, steps, epochs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "min",
        "10 minutes",
        "0min",
        "0.0h",
        "0steps",
        "-5min",
        "1.5steps",
        "1e3steps",
        "5min,2h",
        "5min,",
        ",",
    ]
    + ["10MIN", "1epoch2", "nan s", "1_0s"],
)
def test_malformed_intervals_are_refused_with_their_value(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_interval(text, "HPCDL_CHECKPOINT_EVERY")
    assert str(caught.value).startswith("HPCDL_CHECKPOINT_EVERY must be")
    assert repr(text) in str(caught.value)


def test_the_ramp_is_exact_arithmetic_up_to_rounding() -> None:
    for step in range(59):
        exact = 1 + Fraction(7) * step / 59
        assert warmup_multiplier(step, 59, 8.0) == pytest.approx(float(exact), rel=1e-15)
