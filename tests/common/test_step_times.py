"""Step files: what a rank wrote is read back, and damage is named and skipped."""

from __future__ import annotations

import json

import pytest

from hpcdl.common.step_times import (
    SCHEMA_VERSION,
    RankSteps,
    StepLog,
    parse_steps,
    read_step_times,
    recent_rate,
)


def test_what_the_ranks_wrote_is_read_back_by_rank(tmp_path):
    for rank in (0, 7):
        log = StepLog(tmp_path, rank, f"n{rank}")
        log.append(0, [2.0, 0.25])
        log.append(2, [0.5, 0.25 + rank])
    found = read_step_times(tmp_path)
    assert found.problems == []
    assert sorted(found.ranks) == [0, 7]
    assert found.ranks[7].hostname == "n7"
    assert found.ranks[7].first_step == 0
    assert found.ranks[7].step_seconds == (2.0, 0.25, 0.5, 7.25)


def test_without_a_folder_nothing_is_written_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    StepLog(None, 0, "n0").append(0, [1.0])
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_started_again_gives_the_steps_since_then(tmp_path):
    StepLog(tmp_path, 0, "n0").append(0, [1.0, 1.0, 1.0])
    path = tmp_path / "steps" / "rank-0000.jsonl"
    path.write_text(path.read_text() + '{"first_step": 3, "step_sec')  # it was killed here
    again = StepLog(tmp_path, 0, "n1")
    again.append(2, [2.0])
    steps = read_step_times(tmp_path).ranks[0]
    assert (steps.hostname, steps.first_step, steps.step_seconds) == ("n1", 2, (2.0,))
    assert len(read_step_times(tmp_path).problems) == 1


def test_after_a_write_that_failed_the_file_begins_anew(tmp_path, monkeypatch):
    log = StepLog(tmp_path, 0, "n0")
    log.append(0, [1.0, 1.0])
    path = tmp_path / "steps" / "rank-0000.jsonl"
    path.rename(tmp_path / "away")
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        log.append(2, [2.0, 2.0])
    path.rmdir()
    path.write_text(
        (tmp_path / "away").read_text() + '{"first_step": 2, "st'
    )  # what a full disk has taken of it
    log.append(4, [3.0, 3.0])
    found = read_step_times(tmp_path)
    assert (found.ranks[0].first_step, found.ranks[0].step_seconds) == (4, (3.0, 3.0))
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    "line", ["{", '{"first_step": 0}', "[1]", '{"first_step": "x", "step_seconds": [1]}', "\ufffd\x00"]
)
def test_a_damaged_line_is_named_by_its_number_and_skipped(line):
    start = json.dumps({"schema_version": SCHEMA_VERSION, "rank": 3, "hostname": "n"})
    steps, problems = parse_steps(f'{start}\n{line}\n{{"first_step": 4, "step_seconds": [1.0]}}\n')
    assert [problem.partition(":")[0] for problem in problems] == ["line 2"]
    assert steps is not None
    assert (steps.rank, steps.first_step, steps.step_seconds) == (3, 4, (1.0,))


def test_a_gap_is_told_and_what_lies_before_it_left_out():
    start = json.dumps({"schema_version": SCHEMA_VERSION, "rank": 0, "hostname": "n"})
    rows = [json.dumps({"first_step": first, "step_seconds": [1.0, 2.0]}) for first in (0, 2, 8)]
    steps, problems = parse_steps("\n".join([start, *rows]))
    assert steps is not None
    assert (steps.first_step, steps.step_seconds) == (8, (1.0, 2.0))
    assert "line 4" in problems[0]


def test_a_schema_of_the_future_and_an_empty_file_give_nothing_and_say_so():
    future = json.dumps({"schema_version": SCHEMA_VERSION + 1, "rank": 0, "hostname": "n"})
    steps, problems = parse_steps(future + '\n{"first_step": 0, "step_seconds": [1.0]}')
    assert steps is None
    assert "newer" in problems[0]
    assert parse_steps("")[0] is None


def of_ranks(*rows):
    return {rank: RankSteps(rank, "n", first, tuple(seconds)) for rank, first, seconds in rows}


def test_the_rate_is_that_of_the_slowest_rank_over_the_steps_that_all_have_taken_without_the_first():
    ranks = of_ranks((0, 0, [9.0, 0.5, 0.5, 7.0]), (1, 0, [8.0, 1.0, 1.0]))
    assert recent_rate(ranks, world_size=2, samples_per_step=100) == 100.0
    assert recent_rate(of_ranks((0, 5, [2.0])), world_size=1, samples_per_step=100) == 50.0


def test_only_the_last_steps_count_for_the_rate():
    ranks = of_ranks((0, 0, [1.0] * 1000 + [0.25] * 100))
    assert recent_rate(ranks, world_size=1, samples_per_step=1) == 4.0


def test_there_is_no_rate_before_all_ranks_have_taken_the_same_steps():
    assert recent_rate({}, world_size=2, samples_per_step=1) is None
    assert recent_rate(of_ranks((0, 0, [1.0, 1.0])), world_size=2, samples_per_step=1) is None
    started_again = of_ranks((0, 40, [1.0]), (1, 0, [1.0] * 20))
    assert recent_rate(started_again, world_size=2, samples_per_step=1) is None
    fewer_than_before = of_ranks((0, 40, [1.0, 1.0]), (1, 0, [1.0] * 20))
    assert recent_rate(fewer_than_before, world_size=1, samples_per_step=1) == 1.0


def test_of_a_long_file_the_end_is_enough(tmp_path):
    log = StepLog(tmp_path, 3, "n3")
    for epoch in range(50):
        log.append(10 * epoch, [0.5] * 10)
    found = read_step_times(tmp_path, most_bytes=500)
    assert found.problems == []
    assert found.ranks[3].hostname == "n3"
    assert found.ranks[3].first_step > 400
    assert found.ranks[3].first_step % 10 == 0
    assert found.ranks[3].first_step + len(found.ranks[3].step_seconds) == 500
    assert read_step_times(tmp_path, most_bytes=10**6) == read_step_times(tmp_path)
