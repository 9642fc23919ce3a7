"""A measurement: real processes write steps, the slowest rank counts, and nothing half-done is ever read."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time

import pytest

from hpcdl.common.errors import BadInput, HpcdlError
from hpcdl.common.load import Load
from hpcdl.launch.bench import measuring, rounds
from hpcdl.launch.bench.measuring import Point, Start, Window, measure, read_measurement
from hpcdl.launch.bench.rounds import (
    Effort,
    Round,
    choose,
    progress,
    run_rounds,
    seconds_left,
    shuffled,
)
from hpcdl.launch.processes import identify

WINDOW = Window(untimed_steps=2, timed_steps=4)
#: Writes the steps of some ranks, as a run does: [seconds of a step of rank 0, of rank 1, ...].
PROGRAM = """
import sys, json, pathlib
from hpcdl.common.step_times import StepLog
for rank, seconds in enumerate(json.loads(sys.argv[2])):
    StepLog(pathlib.Path(sys.argv[1]), rank, "n").append(0, [9.0, 9.0] + [seconds] * int(sys.argv[3]))
"""


def point(name, *step_seconds, samples_per_step=10, num_steps=4, program=PROGRAM, cpus=None):
    """Describes processes of which each writes the steps of its ranks."""

    def starts(places):
        return [
            Start(
                (sys.executable, "-c", program, str(place), json.dumps(seconds), str(num_steps)),
                {"PYTHONPATH": os.pathsep.join(sys.path)},
                cpus,
            )
            for place, seconds in zip(places, step_seconds)
        ]

    return Point(name, starts, len(step_seconds), samples_per_step)


@pytest.mark.parametrize("seconds", [0.0, float("inf"), float("nan")])
def test_steps_that_took_no_time_are_no_measurement(tmp_path, seconds):
    with pytest.raises(HpcdlError, match="the steps of a measurement take time; rank 0 recorded"):
        measure(point("a", [seconds]), WINDOW, tmp_path / "m")


def test_the_slowest_rank_counts_and_the_untimed_steps_do_not(tmp_path):
    measurement = measure(point("a", [0.5, 2.0]), WINDOW, tmp_path / "m")
    assert measurement.samples_per_second == pytest.approx(10 / 2.0)
    assert measurement.step_seconds == pytest.approx(2.0)
    assert measurement.seconds > 0


def test_processes_side_by_side_add_up(tmp_path):
    measurement = measure(point("a", [0.5], [0.25]), WINDOW, tmp_path / "m")
    assert measurement.samples_per_second == pytest.approx(10 / 0.5 + 10 / 0.25)


def test_what_was_measured_is_only_read_and_what_was_broken_off_is_done_again(tmp_path):
    folder = tmp_path / "m"
    first = measure(point("a", [0.5]), WINDOW, folder)
    assert measure(point("a", [4.0]), WINDOW, folder) == first
    (folder / "measurement.json").unlink()
    assert measure(point("a", [4.0]), WINDOW, folder).step_seconds == pytest.approx(4.0)


def test_processes_get_their_cores(tmp_path):
    program = "import os, sys; open(sys.argv[1] + '.cpus', 'w').write(str(os.sched_getaffinity(0)))"
    cpu = max(os.sched_getaffinity(0))
    with pytest.raises(HpcdlError, match="0 of 1 ranks recorded"):
        measure(point("a", [1.0], program=program, cpus=(cpu,)), WINDOW, tmp_path / "m")
    assert (tmp_path / "m" / "process-0.cpus").read_text() == str({cpu})


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path):
    failing = point("broken", [1.0], program="import sys; sys.exit('no data')")
    with pytest.raises(HpcdlError, match="broken ended with status 1.*no data"):
        measure(failing, WINDOW, tmp_path / "m")
    with pytest.raises(HpcdlError, match="holds no measurement"):
        read_measurement(failing, WINDOW, tmp_path / "m")


def test_a_process_that_hangs_is_ended(tmp_path):
    begin = time.monotonic()
    with pytest.raises(HpcdlError, match="did not end within 0.5 s.*--timeout-min"):
        measure(
            point("a", [1.0], program="import time; time.sleep(600)"), WINDOW, tmp_path / "m", timeout_s=0.5
        )
    assert time.monotonic() - begin < 30


def test_no_rank_is_left_where_a_launch_is_ended(tmp_path, monkeypatch):
    # Ranks lead sessions of their own, and a fit only notes SIGTERM. A shell's background job has SIGINT ignored.
    (tmp_path / "script.py").write_text(
        "import os, signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT):\n"
        "    signal.signal(number, lambda *_: None)\n"
        "open(f'{os.getpid()}.pid', 'w').close()\n"
        "time.sleep(60)\n"
    )
    words = ("-m", "hpcdl", "train", "--np", "2", "--launcher", "gloo", "--oversubscribe", "script.py")
    hangs = Point("a", lambda _: [Start((sys.executable, *words), {})], 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "_ENDINGS", [(number, min(1.0, s)) for number, s in measuring._ENDINGS])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(HpcdlError, match="did not end"):
            # By then they have begun, on a busy machine too.
            measure(hangs, WINDOW, tmp_path / "m", timeout_s=15.0)
    finally:
        signal.signal(signal.SIGINT, before)
    ranks = [identify(int(path.stem)) for path in tmp_path.glob("*.pid")]
    assert len(ranks) == 2
    assert [rank for rank in ranks if rank is not None and rank.is_alive()] == []


def test_fewer_steps_than_the_window_has_are_refused(tmp_path):
    with pytest.raises(HpcdlError, match="needs 6 steps.*rank 0 recorded 5"):
        measure(point("a", [1.0], num_steps=3), WINDOW, tmp_path / "m")


def test_rounds_interleave_their_points_and_go_on_where_they_were(tmp_path):
    points = [point("a", [1.0]), point("b", [2.0])]
    said = []
    effort = Effort(rounds=2, most_rounds=2, wait_s=0.0, lock=tmp_path / "lock")
    rounds = run_rounds(points, WINDOW, tmp_path / "study", effort, said.append)
    assert [r.number for r in rounds] == [0, 1]
    assert all(r.rate("a") == pytest.approx(2 * r.rate("b")) for r in rounds)
    assert ["by a first guess" in line for line in said] == [True, False, False, False]
    slower = [point("a", [7.0]), point("b", [7.0])]
    assert run_rounds(slower, WINDOW, tmp_path / "study", effort, said.append) == rounds


def test_a_launch_has_the_time_that_the_study_gives_it(tmp_path):
    hangs = point("a", [1.0], program="import time; time.sleep(600)")
    effort = Effort(rounds=1, most_rounds=1, wait_s=0.0, timeout_s=0.5)
    with pytest.raises(HpcdlError, match="within 0.5 s"):
        run_rounds([hangs], WINDOW, tmp_path / "study", effort, lambda _: None)


def test_a_launch_that_was_stopped_in_time_says_what_that_means(tmp_path):
    leaves = point("a", [1.0], program="import sys; sys.exit(85)")
    with pytest.raises(
        HpcdlError, match="a was stopped before its steps were timed; .*process-0.log ends with"
    ):
        measure(leaves, WINDOW, tmp_path / "m")


def test_who_waits_for_a_lock_is_told(tmp_path, monkeypatch):
    said = []
    with open(tmp_path / "lock", "a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        monkeypatch.setattr(
            rounds, "say", lambda words: (said.append(words), fcntl.flock(holder, fcntl.LOCK_UN))
        )
        for _ in range(2):
            with rounds.locked(tmp_path / "lock"), pytest.raises(BlockingIOError):
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert said == [f"waiting for another hpcdl bench, which has locked {tmp_path / 'lock'}"]


def test_a_study_that_would_be_in_vain_ends_after_its_first_round(tmp_path):
    def check(found):
        raise BadInput(f"round {found.number} shows it")

    effort = Effort(rounds=9, most_rounds=9, wait_s=0.0)
    with pytest.raises(BadInput, match="round 0 shows it"):
        run_rounds([point("a", [1.0])], WINDOW, tmp_path / "study", effort, lambda _: None, check)
    assert [at.name for at in (tmp_path / "study").iterdir()] == ["round-000"]


def test_a_round_has_an_order_of_its_own_and_always_the_same():
    points = [point(name, [1.0]) for name in "abcdef"]
    orders = [[p.name for p in shuffled(points, number)] for number in range(9)]
    assert all(sorted(order) == list("abcdef") for order in orders)
    assert len({tuple(order) for order in orders}) > 5
    assert orders[3] == [p.name for p in shuffled(points, 3)]


def test_the_load_is_that_of_the_steps_that_count_where_the_runs_looked(tmp_path):
    both = point("a", [1.0], [1.0])
    measure(both, WINDOW, tmp_path / "m")
    for number, own in enumerate((9.0, 9.5)):
        clocks = {"seconds": 10.0, "machine": 19.0, "stolen": 0.0, "own": own, "num_cores": 2}
        run = {"clocks": {"n0": clocks}, "schema_version": 1}
        (tmp_path / "m" / f"process-{number}" / "run.json").write_text(json.dumps(run))
    assert read_measurement(both, WINDOW, tmp_path / "m").load == Load(pytest.approx(0.05), 0.0, 2)
    run["clocks"]["n0"]["own"] = "much"
    (tmp_path / "m" / "process-1" / "run.json").write_text(json.dumps(run))
    with pytest.raises(HpcdlError, match=r"process-1/run.json cannot be read"):
        read_measurement(both, WINDOW, tmp_path / "m")


def test_calm_rounds_count_alone_if_there_are_enough(tmp_path):
    measurement = measure(point("a", [1.0]), WINDOW, tmp_path / "m")
    record = json.loads((tmp_path / "m" / "measurement.json").read_text())
    rounds = []
    for number, cores in enumerate((0.0, 9.0, 0.0)):
        record["load"] = {"cores": cores, "stolen": 0.0, "num_cores": 2}
        (tmp_path / "m" / "measurement.json").write_text(json.dumps(record))
        rounds.append(Round(number, {"a": read_measurement(point("a", [1.0]), WINDOW, tmp_path / "m")}))
    assert rounds[0].measurements["a"].samples_per_second == measurement.samples_per_second
    assert [r.number for r in choose(rounds, wanted=2).rounds] == [0, 2]
    assert choose(rounds, wanted=2).is_calm
    assert [r.number for r in choose(rounds, wanted=3).rounds] == [0, 1, 2]
    assert not choose(rounds, wanted=3).is_calm


def test_the_time_left_is_that_of_this_round_and_the_rounds_after_it():
    points = [point("a", [1.0]), point("b", [1.0])]
    assert seconds_left(["b"], points, 3, {"a": 10.0, "b": 20.0}) == 20 + 3 * 30
    assert seconds_left(["b"], points, 0, {"a": 10.0}) == 10.0  # b as long as the others
    assert progress(2, 9, "a", 600.0) == "round 3 of 9: a; about 10 min left"
    assert progress(0, 9, "a", 600.0, is_guess=True).endswith("about 10 min left, by a first guess")
    assert "2 were not calm" in progress(10, 9, "a", 30.0)
