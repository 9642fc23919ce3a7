"""A study is read from the runs' own files; ratios are paired by round; what is not whole is left out or refused."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.bench.opening import open_study
from hpcdl.launch.bench.study import read_study, summary
from hpcdl.launch.bench.text import sentences
from hpcdl.launch.cli import main
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
    assert two.ceiling.median * two.machine.median == pytest.approx(two.speed_up.median)
    assert (one.global_batch_size, two.global_batch_size) == (8, 16)
    assert two.step_p50_ms == pytest.approx(250.0)
    assert one.ceiling is None
    assert (one.first_step_s, two.first_step_s) == (9.0, 9.0)  # which holds the compilation


@pytest.mark.parametrize("rounds", [1, 9])
def test_a_quick_look_is_called_so(rounds, tmp_path):
    said = summary(read_study(write_study(tmp_path / "study", slowness=(1.0,) * rounds))).splitlines()[0]
    assert ("a quick look, no evidence" in said, "95 % interval" in said) == (rounds == 1, rounds == 9)


def test_a_step_is_split_and_what_is_lost_has_its_causes(folder):
    one, two = read_study(folder).rows
    assert {name: of.median for name, of in two.parts_ms.items()} == pytest.approx(
        {"compute": 202, "input": 8, "imbalance": 10, "exchange": 30}
    )
    assert {name: of.median for name, of in one.parts_ms.items()} == pytest.approx(
        {"compute": 196, "input": 4}  # a rank alone waits for nobody
    )
    assert sum(of.median for of in two.lost.values()) == pytest.approx(0.2)
    assert one.lost == {}
    assert [(r.rank, r.hostname) for r in two.ranks] == [(0, "n1"), (1, "n1")]
    of_ranks = [(r.compute_ms, r.input_ms, r.wait_ms) for r in two.ranks]
    assert of_ranks[0] == pytest.approx((192, 8, 20))  # of steps of 110 and 125 ms, at twice the time
    assert of_ranks[1] == pytest.approx((212, 8, 30))
    assert one.ranks[0].wait_ms is None
    said = summary(read_study(folder))
    assert "20.0 % of a step are lost" in said
    assert "too few rounds to tell noise from: the exchange of gradients 12.0 %" in said
    assert (
        "The ranks one by one: compute 192 to 212 ms, input 8.00 to 8.00 ms, wait for the others and" in said
    )


def test_ranks_that_were_never_measured_by_themselves_have_no_times_of_their_own(tmp_path):
    study = read_study(write_study(tmp_path / "study", {name: STEPS[name] for name in ("weak-1", "weak-2")}))
    assert study.rows[1].ranks == ()


def test_a_slow_rank_is_named_with_its_host_by_what_it_takes_alone(tmp_path):
    steps = {**STEPS, "weak-2": [[0.125, 0.125]], "control-2": [[0.100, 0.125]]}
    study = read_study(write_study(tmp_path / "study", steps))
    assert study.rows[1].slow_ranks == ("rank 1 on n1",)
    assert "rank 1 on n1" in summary(study)


def test_ranks_of_a_site_are_the_same_ranks_on_whatever_nodes_their_jobs_ran(tmp_path):
    steps = {**STEPS, "control-2": [[0.100, 0.120]]}
    folder = write_study(tmp_path / "study", steps, slowness=(1.0, 1.0))
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**record, "site": "small"}))
    for i, path in enumerate(sorted(folder.glob("round-*/*/process-0/steps/rank-*.jsonl"))):
        path.write_text(path.read_text().replace('"n1"', f'"n{i}"'))
    study = read_study(folder)
    two = study.rows[1]
    assert [(rank.rank, len(rank.hostname.split(", "))) for rank in two.ranks] == [(0, 2), (1, 2)]
    of_ranks = [(rank.compute_ms, rank.input_ms, rank.wait_ms) for rank in two.ranks]
    assert of_ranks == [pytest.approx((96, 4, 10)), pytest.approx((106, 14, 5))]
    hosts = two.ranks[1].hostname.split(", ")
    assert set(two.slow_ranks) == {f"rank 1 on {host}" for host in hosts}


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


def test_a_run_in_another_world_than_planned_is_left_out(folder):
    path = folder / "round-001" / "weak-2" / "process-0" / "run.json"
    record = json.loads(path.read_text())
    record["config"]["replicas_per_process"] = 4  # as of a process that took all GPUs
    path.write_text(json.dumps(record))
    study = read_study(folder)
    assert len(study.rows[1].rates) == 2
    assert "2 rank(s) x 1 replica(s), as planned; its run.json says 2 x 4" in study.problems[0]


def test_a_run_that_names_no_batch_is_left_out(folder):
    path = folder / "round-001" / "weak-2" / "process-0" / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["per_replica_batch_size"]
    path.write_text(json.dumps(record))
    study = read_study(folder)
    assert len(study.rows[1].rates) == 2
    assert "names no per_replica_batch_size" in study.problems[0]


def test_a_folder_that_is_no_round_is_named_and_left_out(folder):
    (folder / "round-old" / "weak-1").mkdir(parents=True)
    study = read_study(folder)
    assert len(study.rows[1].rates) == 3
    assert [problem for problem in study.problems if "round-old is no round" in problem] == list(
        study.problems
    )


@pytest.mark.parametrize("name", ["measurement.json", "process-0/run.json"])
def test_a_record_of_a_later_hpcdl_is_refused(folder, name):
    path = folder / "round-001" / "weak-2" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(BadInput, match=f"schema 1; received .*{name} of schema 99"):
        read_study(folder)


def test_a_rank_without_steps_is_missed(folder):
    (folder / "round-000" / "weak-2" / "process-0" / "steps" / "rank-0001.jsonl").unlink()
    study = read_study(folder)
    assert len(study.rows[1].rates) == 2
    assert "1 of 2 ranks" in study.problems[0]


def test_steps_that_cannot_be_read_are_left_out(folder):
    steps = folder / "round-000" / "weak-2" / "process-0" / "steps"
    shutil.rmtree(steps)
    steps.write_text("")
    study = read_study(folder)
    assert len(study.rows[1].rates) == 2
    assert "steps cannot be read" in study.problems[0]


def test_foreign_load_is_told(folder):
    assert read_study(folder).is_calm
    write_measurement(folder / "round-001" / "weak-2", STEPS["weak-2"], 2.0, cores=0.5)
    study = read_study(folder)
    assert not study.is_calm
    assert study.rows[1].num_loaded == 1
    assert "UNDER FOREIGN LOAD" in summary(study)


def test_loaded_rounds_count_only_where_there_are_too_few_calm_ones(tmp_path):
    folder = write_study(tmp_path / "study", slowness=(1.0, 1.0, 3.0), rounds=2)
    write_measurement(folder / "round-002" / "ceiling-2", STEPS["ceiling-2"], 3.0, cores=0.5)
    study = read_study(folder)
    assert (study.num_rounds, study.num_left_out, study.is_calm) == (2, 1, True)
    assert study.rows[1].rates == pytest.approx((128.0, 128.0))  # nothing of that round, in any point
    assert study.rows[1].num_loaded == 0
    assert "1 more under foreign load left out" in summary(study)
    assert "Left out: 1 more round" in " ".join(sentences(study, 0.75).method)
    write_measurement(folder / "round-001" / "weak-1", STEPS["weak-1"], 1.0, cores=0.5)
    study = read_study(folder)
    assert (study.num_rounds, study.num_left_out, study.is_calm) == (3, 0, False)


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
    with pytest.raises(BadInput):
        open_study(folder, {"target": "x/y", "points": []}, [])


def paths_in(value, start=()):
    """Names all values inside of a JSON value; of lists the first."""
    inside = value.items() if isinstance(value, dict) else list(enumerate(value))[:1]
    for key, of_key in inside:
        yield (*start, key)
        if isinstance(of_key, (dict, list)):
            yield from paths_in(of_key, (*start, key))


def damaged(text):
    """Gives a record with each of its values in turn left out, or of another type."""
    for *parents, last in paths_in(json.loads(text)):
        for instead in (None, True, [], [1], {}, {"x": 1}, "x", "", -1, 0, 0.5, float("inf"), 10**400):
            record = json.loads(text)
            place = record
            for key in parents:
                place = place[key]
            place[last] = instead
            yield json.dumps(record)
        del place[last]
        yield json.dumps(record)


SOURCE = {"commit": "0123456789abcdef", "is_changed": True}
#: What a run and a study may tell besides.
OF_RUN = {
    "status": "done",
    "schema_version": 1,
    "source": SOURCE,
    "libraries": {"mpi": "4"},
    "identity": {"model": "a", "loss": "b", "optimizer": {"name": "adam"}},
    "memory": {"host_peak_bytes": 9, "gpu_peak_bytes": 8},
    "gpu_use_percent": 90.0,
    "clocks": {"n1": {"seconds": 8.0, "machine": 9.0, "stolen": 0.0, "own": 8.0, "num_cores": 2}},
}
OF_STUDY = {
    "source": SOURCE,
    "command": ["x/y", "--xla"],
    "hostname": "n1",
    "processor": "p",
    "num_cores": 2,
    "num_gpus": 2,
    "gpu_kind": "g",
    "created": "today",
    "site": "s",
    "partition": "p",
}
OF_JOB = {"job": {"id": "7", "folder": "job", "site": "s", "node_hours_at_most": 1.0}}
STATE = {"state": "done", "started": 1.0, "ended": 2.0, "image": {"sif_id": "ab"}}


def test_records_of_a_commit_of_which_git_told_no_changes_are_read(tmp_path):
    further = {**OF_RUN, "source": {**SOURCE, "is_changed": None}}
    folder = write_study(tmp_path / "study", {"weak-1": [[0.1]], "weak-2": [[0.1, 0.1]]}, further=further)
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**record, "source": further["source"]}))
    study = read_study(folder)
    assert study.problems == ()
    assert len(study.rows) == 2


@pytest.mark.parametrize(
    "name",
    [
        "study.json",
        "round-000/weak-2/measurement.json",
        "round-000/weak-2/process-0/run.json",
        "round-000/weak-2/job/state.json",
    ],
)
@pytest.mark.parametrize("is_of_job", [False, True])
def test_whatever_is_damaged_is_refused_or_left_out_and_nothing_falls_over(tmp_path, name, is_of_job, capsys):
    steps = {"weak-1": [[0.1]], "weak-2": [[0.1, 0.1]]}
    folder = write_study(tmp_path / "study", steps, slowness=(1.0,), further=OF_RUN)
    job = folder / "round-000" / "weak-2" / "job"
    job.mkdir()
    (job / "state.json").write_text(json.dumps(STATE))
    for path, further in (("study.json", OF_STUDY), ("round-000/weak-2/measurement.json", OF_JOB)):
        record = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps({**record, **(further if is_of_job else {})}))
    text = (folder / name).read_text()
    for one in [text, *damaged(text)]:
        (folder / name).write_text(one)
        for words in (
            ("report", "--format", "md,tex,json", folder),
            ("predict", "--num-replicas", "8", folder),
            ("compare", "--json", folder, folder),
        ):
            main(["bench", *map(str, words)])
            said = capsys.readouterr().err
            assert "unexpected" not in said, (said, words, one)
    with contextlib.suppress(BadInput):
        summary(read_study(folder))


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(BadInput, match="study.json"):
        read_study(tmp_path)
