"""What a benchmark tells its runs: it travels whole, and nothing of it acts by accident."""

from __future__ import annotations

import threading

import pytest

from hpcdl.common.bench import BenchSettings, meet
from hpcdl.common.errors import BadInput, HpcdlError


def test_settings_travel_through_the_environment():
    settings = BenchSettings(steps=95, without_exchange=True, meet_dir="/x", meet_count=2)
    assert BenchSettings.from_environ(settings.to_environ()) == settings
    assert BenchSettings.from_environ({}) == BenchSettings()


def test_the_exchange_cannot_be_switched_off_outside_of_a_benchmark():
    with pytest.raises(BadInput, match="HPCDL_BENCH_STEPS"):
        BenchSettings.from_environ({"HPCDL_BENCH_WITHOUT_EXCHANGE": "1"})


@pytest.mark.parametrize(
    ("steps", "num_samples", "expected"),
    [(95, 60_000, (95 * 256, 1)), (95, 25 * 256 + 3, (25 * 256, 4)), (3, 256, (256, 3))],
)
def test_a_run_is_cut_to_whole_steps_and_no_fewer_than_asked_for(steps, num_samples, expected):
    samples, epochs = BenchSettings(steps=steps).cut(num_samples, 256)
    assert (samples, epochs) == expected
    assert samples // 256 * epochs >= steps


def test_fewer_data_than_a_step_takes_are_refused():
    with pytest.raises(BadInput, match="global batch"):
        BenchSettings(steps=1).cut(255, 256)


def test_strong_scaling_keeps_the_global_batch_that_some_replicas_would_have():
    assert BenchSettings(steps=1, batch_of_replicas=4).batches(32, None) == (None, 128)
    assert BenchSettings(steps=1, batch_of_replicas=4).batches(None, 64) == (None, 64)
    assert BenchSettings(steps=1).batches(32, None) == (32, None)


def test_weak_scaling_refuses_a_fixed_global_batch():
    weak = BenchSettings(steps=1, weak=True)
    assert weak.batches(32, None) == (32, None)
    with pytest.raises(BadInput, match="global_batch_size=64.*--scaling strong"):
        weak.batches(None, 64)


def test_processes_wait_for_each_other_and_not_for_ever(tmp_path):
    with pytest.raises(HpcdlError, match="1 came"):
        meet(tmp_path / "a", 2, timeout_s=0.05)
    (tmp_path / "b").mkdir()
    other = threading.Timer(0.1, (tmp_path / "b" / "other").touch)
    other.start()
    meet(tmp_path / "b", 2, timeout_s=30)
    assert (tmp_path / "b" / "other").exists()
