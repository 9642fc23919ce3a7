"""A study is worked out before it begins: the same cores per rank everywhere, and each run told what it is for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcdl.common.bench import BenchSettings
from hpcdl.common.errors import BadInput
from hpcdl.common.words import parse_train
from hpcdl.launch.bench.planning import TRACED_STEPS, bench_settings, describe, plan_study
from hpcdl.launch.bench.words import StudyOptions
from hpcdl.launch.machine import Machine

FOUR_CORES = Machine("n1", ((0, 4), (1, 5), (2, 6), (3, 7)))
FOUR_GPUS = replace(FOUR_CORES, num_gpus=4)


def plan(words="fashion_mnist/fc64 --per-replica-batch-size 32", machine=FOUR_CORES, **options):
    options = StudyOptions(**options)
    gpus = [f"GPU-{i}" for i in range(machine.num_gpus)]
    return plan_study(parse_train(words.split()), options, machine, "python", {"A": "1"}, gpus)


def start(study, name, folder=Path("/study/round-000/x")):
    planned = next(p for p in study.points if p.name == name)
    point = study.make_point(planned)
    return list(point.starts([folder / f"process-{i}" for i in range(point.num_processes)]))


def test_the_points_are_the_ranks_their_control_and_their_ceiling():
    names = [p.name for p in plan(np=(1, 2), scaling=("weak", "strong")).points]
    points = ["weak-1", "weak-2", "strong-1", "strong-2"]
    controls = ["cached-1", "control-2", "cached-2", "strong-cached-1"]  # strong-2 has the batches of weak-2
    assert names == [*points, *controls, "ceiling-2"]
    quick = [p.name for p in plan(np=(1, 2), quick=True).points]
    assert quick == ["weak-1", "weak-2", "control-2", "ceiling-2"]
    strong = [p.name for p in plan(np=(1, 2), scaling=("strong",), quick=True).points]
    assert strong == ["strong-1", "strong-2", "strong-control-2"]


def test_a_rank_has_the_same_cores_at_every_point():
    study = plan(np=(1, 2))
    assert {p.cores_per_rank for p in study.points} == {2}
    assert start(study, "weak-1")[0].cpus == (0, 4, 1, 5)
    assert start(study, "weak-2")[0].cpus == (0, 4, 1, 5, 2, 6, 3, 7)
    assert [s.cpus for s in start(study, "ceiling-2")] == [(0, 4, 1, 5), (2, 6, 3, 7)]


def test_runs_are_told_what_they_are_for_through_their_environment():
    study = plan(np=(1, 2), scaling=("weak", "strong"))

    def settings(name):
        return [BenchSettings.from_environ(s.environ) for s in start(study, name)]

    every = {"steps": study.window.steps, "untimed_steps": study.window.untimed_steps}
    weak, cached = {**every, "weak": True}, {**every, "cached_input": True}
    assert settings("weak-2") == [BenchSettings(**weak)]
    assert settings("control-2") == [BenchSettings(without_exchange=True, **weak)]
    assert settings("cached-1") == [BenchSettings(weak=True, **cached)]
    assert settings("cached-2") == [BenchSettings(without_exchange=True, weak=True, **cached)]
    assert settings("strong-1") == [BenchSettings(batch_of_replicas=2, **every)]
    assert settings("strong-cached-1") == [BenchSettings(batch_of_replicas=2, **cached)]
    traced = replace(next(p for p in study.points if p.name == "weak-2"), kind="trace")
    few = study.window.untimed_steps + TRACED_STEPS
    from_there = BenchSettings(trace=True, **{**weak, "steps": few})
    assert bench_settings(traced, study.window, most_replicas=2) == from_there
    meeting = BenchSettings(meet_dir="/study/round-000/x/meeting", meet_count=2, **weak)
    assert settings("ceiling-2") == [meeting, meeting]


def test_runs_take_the_words_of_train_and_a_folder_each():
    (only,) = start(plan(np=(1, 2)), "weak-2")
    command = parse_train(only.argv[4:])
    assert only.argv[:4] == ("python", "-m", "hpcdl", "train")
    assert command.launch.np == 2
    assert command.settings.run_dir == "/study/round-000/x/process-0"
    assert command.options.per_replica_batch_size == 32
    assert {parse_train(s.argv[4:]).settings.run_dir for s in start(plan(np=(1, 2)), "ceiling-2")} == {
        "/study/round-000/x/process-0",
        "/study/round-000/x/process-1",
    }


def test_what_belongs_to_a_script_stays_with_it():
    (only,) = start(plan("my_script.py --np 7 -x", np=(1,)), "weak-1")
    assert parse_train(only.argv[4:]).script_args == ("--np", "7", "-x")


def test_replicas_of_a_process_have_a_core_each():
    study = plan("--replicas-per-process 2 fashion_mnist/fc64", np=(1, 2))
    assert {p.cores_per_rank for p in study.points} == {2}
    with pytest.raises(BadInput, match="np=4 x replicas_per_process=2"):
        plan("--replicas-per-process 2 fashion_mnist/fc64", np=(1, 4))


def test_a_rank_has_the_same_gpus_at_every_point():
    study = plan(machine=FOUR_GPUS, np=(1, 2, 4))
    for name in (
        "weak-1",
        "weak-2",
        "control-4",
        "ceiling-2",
    ):  # left to itself, one process would take all four
        assert {parse_train(s.argv[4:]).settings.replicas_per_process for s in start(study, name)} == {1}
    assert "CUDA_VISIBLE_DEVICES" not in start(study, "weak-2")[0].environ
    ceiling = [s.environ["CUDA_VISIBLE_DEVICES"] for s in start(study, "ceiling-4")]
    assert ceiling == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert "ceiling-2        2 independent processes, 1 core(s) each, 1 GPU(s) each" in describe(study, 20.0)
    two = plan("--replicas-per-process 2 fashion_mnist/fc64", FOUR_GPUS, np=(1, 2))
    ceiling = [s.environ["CUDA_VISIBLE_DEVICES"] for s in start(two, "ceiling-2")]
    assert ceiling == ["GPU-0,GPU-1", "GPU-2,GPU-3"]
    assert "weak-2           2 ranks of 2 replicas, 2 core(s) each, 2 GPU(s) each" in describe(two, 20.0)


def test_more_replicas_than_gpus_are_refused_or_labelled():
    one_gpu = replace(FOUR_CORES, num_gpus=1)
    with pytest.raises(BadInput, match="needs a GPU of its own"):
        plan(machine=one_gpu, np=(1, 2))
    shared = plan(machine=one_gpu, np=(1, 2), oversubscribe=True)
    assert {p.num_ranks: p.is_functional_only for p in shared.points} == {1: False, 2: True}
    assert {s.environ["CUDA_VISIBLE_DEVICES"] for s in start(shared, "ceiling-2")} == {"GPU-0"}


def test_a_strategy_that_fits_no_such_world_is_refused_before_it_starts():
    with pytest.raises(BadInput, match="strategy mirrored is one process"):
        plan("--strategy mirrored fashion_mnist/fc64", np=(1, 2))


def test_a_point_larger_than_the_machine_is_refused_or_labelled():
    with pytest.raises(BadInput, match="--oversubscribe"):
        plan(np=(1, 8))
    study = plan(np=(1, 8), oversubscribe=True)
    assert {p.num_ranks: p.is_functional_only for p in study.points} == {1: False, 8: True}
    assert "weak-8           8 ranks, sharing cores  functional, not performance" in describe(study, 20.0)


@pytest.mark.parametrize(("steps", "untimed"), [(80, 9), (500, 15)])
def test_too_few_untimed_steps_are_refused_with_the_number_that_is_enough(steps, untimed):
    with pytest.raises(BadInput, match="--untimed-steps") as refused:
        plan(np=(1,), steps=steps, untimed_steps=untimed)
    enough = int(str(refused.value).split("--untimed-steps ")[1].split()[0])
    window = plan(np=(1,), steps=steps, untimed_steps=enough).window
    assert window.untimed_steps >= max(10, window.steps / 10)


def test_fewer_steps_than_are_left_out_are_refused():
    with pytest.raises(BadInput, match="received steps=12 with untimed_steps=15; pass --steps 15 or more"):
        plan(np=(1,), steps=12, untimed_steps=15)


def test_a_quick_study_is_one_round_of_few_steps():
    study = plan(np=(1, 2), quick=True)
    assert (study.rounds, study.window.timed_steps) == (1, 30)
    assert "about 2 min by a first guess of 25 s for a launch of 45 steps" in describe(study, 25.0)
