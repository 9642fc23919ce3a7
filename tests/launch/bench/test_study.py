"""A study is read from the runs' own files; ratios are paired by round; what is not whole is left out or refused."""

from __future__ import annotations

import shutil

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.bench.study import read_study, summary
from tests.launch.bench.studies import STEPS, write_measurement, write_study


@pytest.fixture
def folder(tmp_path):
    """A study of three rounds on a machine that slows down from round to round."""
    return write_study(tmp_path / "study")


def test_rates_come_from_the_slowest_rank_and_ratios_from_pairs(folder):
    one, two = read_study(folder).rows
    assert one.rate.median == pytest.approx(8 / 0.2)
    assert two.rate.median == pytest.approx(16 / 0.25)
    # The machine slows down fourfold, and no ratio changes.
    assert two.speed_up.median == pytest.approx(1.6)
    assert two.efficiency.median == pytest.approx(0.8)
    assert two.ceiling.median == pytest.approx((16 / 0.125) / (8 / 0.105 + 8 / 0.100))
    assert two.without_exchange.median == pytest.approx(0.8)
    assert (one.global_batch_size, two.global_batch_size) == (8, 16)
    assert two.step_p50_ms == pytest.approx(250.0)
    assert one.ceiling is None


def test_a_slow_rank_is_named_with_its_host(folder):
    assert read_study(folder).rows[1].slow_ranks == ("rank 1 on n1",)
    assert "rank 1 on n1" in summary(read_study(folder))


def test_a_round_that_was_broken_off_is_left_out(folder):
    (folder / "round-002" / "ceiling-2" / "measurement.json").unlink()
    assert read_study(folder).num_rounds == 2
    for number in range(2):
        shutil.rmtree(folder / f"round-{number:03d}")
    with pytest.raises(BadInput, match="one complete round"):
        read_study(folder)


def test_foreign_load_is_told(folder):
    assert read_study(folder).is_calm
    write_measurement(folder / "round-001" / "weak-2", STEPS["weak-2"], 2.0, cores=0.5)
    study = read_study(folder)
    assert not study.is_calm
    assert study.rows[1].num_loaded == 1
    assert "UNDER FOREIGN LOAD" in summary(study)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"study"', '"allreduce"'),
        lambda text: text.replace('"points"', '"dots"'),
    ],
)
def test_an_empty_foreign_or_future_record_is_refused_in_one_line(folder, damage):
    path = folder / "study.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(BadInput) as refused:
        read_study(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(BadInput, match="study.json"):
        read_study(tmp_path)
