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
    assert (one.global_batch_size, two.global_batch_size) == (8, 16)
    assert two.step_p50_ms == pytest.approx(250.0)
    assert one.ceiling is None


def test_a_step_is_split_and_what_is_lost_has_its_causes(folder):
    one, two = read_study(folder).rows
    assert {name: of.median for name, of in two.parts_ms.items()} == pytest.approx(
        {"compute": 202, "input": 8, "imbalance": 10, "exchange": 30}
    )
    assert {name: of.median for name, of in one.parts_ms.items()} == pytest.approx(
        {"compute": 196, "input": 4, "imbalance": 0, "exchange": 0}
    )
    assert sum(of.median for of in two.lost.values()) == pytest.approx(0.2)
    assert one.lost == {}
    assert [(r.rank, r.hostname, r.compute_ms, r.input_ms) for r in two.ranks] == [
        (0, "n1", pytest.approx(192), pytest.approx(8)),
        (1, "n1", pytest.approx(212), pytest.approx(8)),
    ]
    said = summary(read_study(folder))
    assert "20.0 % of a step are lost, most of it to the exchange of gradients" in said
    assert "The ranks by themselves: compute 192.0 to 212.0 ms, input 8.0 to 8.0 ms" in said


def test_a_slow_rank_is_named_with_its_host_by_what_it_takes_alone(tmp_path):
    steps = {**STEPS, "weak-2": [[0.125, 0.125]], "control-2": [[0.100, 0.125]]}
    study = read_study(write_study(tmp_path / "study", steps))
    assert study.rows[1].slow_ranks == ("rank 1 on n1",)
    assert "rank 1 on n1" in summary(study)


def test_strong_scaling_shares_the_controls_of_the_largest_weak_point(tmp_path):
    steps = {**STEPS, "strong-1": [[0.200]], "strong-cached-1": [[0.190]], "strong-2": [[0.125, 0.120]]}
    study = read_study(write_study(tmp_path / "study", steps))
    two = study.rows[3]
    assert two.planned.scaling == "strong"
    assert two.efficiency.median == pytest.approx(0.8)
    assert sum(of.median for of in two.lost.values()) == pytest.approx(0.2)
    assert "fixed overhead" in summary(study)


def test_a_round_that_was_broken_off_counts_as_far_as_it_was_measured(folder):
    (folder / "round-002" / "weak-2" / "measurement.json").unlink()
    one, two = read_study(folder).rows
    assert (len(one.rates), len(two.rates)) == (3, 2)
    assert two.speed_up.median == pytest.approx(1.6)
    for number in range(3):
        shutil.rmtree(folder / f"round-{number:03d}" / "weak-1")
    with pytest.raises(BadInput, match="weak-1 was not measured"):
        read_study(folder)
    for number in range(3):
        shutil.rmtree(folder / f"round-{number:03d}")
    with pytest.raises(BadInput, match="one point that was measured"):
        read_study(folder)


def test_a_damaged_line_is_named_with_its_number_and_only_what_needs_it_is_left_out(folder):
    steps = folder / "round-001" / "weak-2" / "process-0" / "steps"
    with open(steps / "rank-0000.jsonl", "a") as file:
        file.write('{"first_step": 14, "step_sec')
    study = read_study(folder)
    assert len(study.rows[1].rates) == 3
    assert ["rank-0000.jsonl, line 3" in problem for problem in study.problems] == [True]
    lines = (steps / "rank-0001.jsonl").read_text().splitlines()
    (steps / "rank-0001.jsonl").write_text(f"{lines[0]}\n{lines[1][:40]}\n")
    (folder / "round-002" / "weak-1" / "measurement.json").write_text("{")
    study = read_study(folder)
    assert [len(row.rates) for row in study.rows] == [2, 2]
    assert "rank-0001.jsonl, line 2" in study.problems[0]
    assert "round-002/weak-1" in study.problems[1]
    assert study.problems[0] in summary(study)


def test_a_rank_without_steps_is_missed(folder):
    (folder / "round-000" / "weak-2" / "process-0" / "steps" / "rank-0001.jsonl").unlink()
    study = read_study(folder)
    assert len(study.rows[1].rates) == 2
    assert "1 of 2 ranks" in study.problems[0]


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
