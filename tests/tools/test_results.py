"""The accuracies in docs/results.md are those of its records, one for each trial."""

from __future__ import annotations

from hpcdl.common.records import read_json
from tools.results import ROOT, WORKLOADS, WORLD_SIZES, merged, table

TRIALS = read_json(ROOT / "docs" / "results.json")["trials"]


def test_the_page_shows_the_table_of_the_records() -> None:
    assert table(TRIALS) in (ROOT / "docs" / "results.md").read_text()


def test_each_workload_has_a_record_on_each_number_of_ranks_with_its_code_and_data() -> None:
    of_newest = [one for one in TRIALS if one["versions"]["tensorflow"].startswith("2.21.")]
    tried = sorted((one["workload"], one["world_size"]) for one in of_newest)
    assert tried == sorted((name, ranks) for name in WORKLOADS for ranks in WORLD_SIZES)
    for one in TRIALS:
        assert len(one["source"]["commit"]) == 40
        assert one["source"]["is_changed"] is False
        assert one["data"]["is_synthetic"] is False


def test_a_trial_takes_the_place_of_the_one_before_under_the_same_tensorflow() -> None:
    again = {**TRIALS[0], "test_accuracy": 0.5}
    assert merged(TRIALS, [again]) == [again, *TRIALS[1:]]
