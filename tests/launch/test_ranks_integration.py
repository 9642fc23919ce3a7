"""``hpcdl train`` with real ranks, under both launchers: where they run, what is seen of them, how they end.

The scripts use the standard library only, so a rank is up in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from hpcdl.launch.machine import read_machine
from hpcdl.launch.placement import Placement
from hpcdl.launch.ranks import Ranks, run_ranks
from hpcdl.launch.watch import RanksLost
from tests.bare import needs_mpirun

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs 2 cores")

#: Every script begins with this.
PREAMBLE = """\
import json, os, signal, subprocess, sys, time
from pathlib import Path
from hpcdl.common.topology import read_topology
from hpcdl.runtime.use import note_use
note_use(os.environ)  # as a script that trains does
rank = read_topology(os.environ, "host").rank
here = Path(__file__).parent
def wait_for(name):
    deadline = time.monotonic() + 50
    while not (here / name).exists():
        time.sleep(0.01)
        assert time.monotonic() < deadline, f"{name} did not come"
def note(name, value=""):
    (here / (name + ".new")).write_text(json.dumps(value))
    os.replace(str(here / (name + ".new")), str(here / name))
"""


@pytest.fixture(params=[pytest.param("mpi", marks=needs_mpirun), "gloo"])
def launcher(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Train:
    """Starts ``hpcdl train`` on a script, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: List[subprocess.Popen[str]] = []

    def start(
        self, script: str, *options: str, environ: Optional[Dict[str, str]] = None
    ) -> subprocess.Popen[str]:
        (self.folder / "script.py").write_text(PREAMBLE + script)
        words = [sys.executable, "-m", "hpcdl", "train", *options, str(self.folder / "script.py")]
        process = subprocess.Popen(
            words,
            cwd=str(self.folder),
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def run(
        self, script: str, *options: str, environ: Optional[Dict[str, str]] = None
    ) -> subprocess.CompletedProcess[str]:
        return finish(self.start(script, *options, environ=environ))

    def wait_for(self, *names: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, f"no {names} in {sorted(os.listdir(str(self.folder)))}"
            time.sleep(0.01)

    def noted(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def log(self, rank: int) -> str:
        (path,) = self.folder.glob(f"hpcdl-logs/*/rank-{rank:04d}.log")
        return path.read_text()


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


@pytest.fixture
def train(tmp_path: Path) -> Any:
    train = Train(tmp_path)
    yield train
    for process in train.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@TWO_CORES
def test_ranks_start_on_disjoint_cores_with_as_many_threads(train: Train, launcher: str) -> None:
    script = """
names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OMPI_MCA_mpi_yield_when_idle")
note(f"rank-{rank}", [sorted(os.sched_getaffinity(0)), {name: os.environ.get(name) for name in names}])
"""
    environ = {"CUDA_VISIBLE_DEVICES": ""}
    done = train.run(script, "-n", "2", "--launcher", launcher, environ=environ)
    assert done.returncode == 0, done.stderr
    (cpus_0, environ_0), (cpus_1, _) = (train.noted(f"rank-{rank}") for rank in (0, 1))
    assert cpus_0
    assert cpus_1
    assert not set(cpus_0) & set(cpus_1)
    threads = str(read_machine(environ).num_cores // 2)
    assert environ_0["OMP_NUM_THREADS"] == environ_0["TF_NUM_INTRAOP_THREADS"] == threads
    assert environ_0["OMPI_MCA_mpi_yield_when_idle"] == ("1" if launcher == "mpi" else None)


def test_more_ranks_than_cores_share_them_where_that_was_asked_for(train: Train, launcher: str) -> None:
    np = read_machine({}).num_cores + 1
    script = 'note(f"rank-{rank}", [len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]])'
    done = train.run(script, "-n", str(np), "--launcher", launcher, "--oversubscribe")
    assert done.returncode == 0, done.stderr
    found = [train.noted(f"rank-{rank}") for rank in range(np)]
    assert found == [[len(os.sched_getaffinity(0)), "1"]] * np


def test_more_ranks_than_cores_are_refused_and_nothing_is_written(train: Train, launcher: str) -> None:
    np = read_machine({}).num_cores + 1
    done = train.run("note('started')", "-n", str(np), "--launcher", launcher)
    assert done.returncode == 2
    assert f"received np={np} on" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(os.listdir(str(train.folder))) == ["script.py"]


def test_rank_0_is_seen_while_it_writes_and_every_rank_has_a_log(train: Train, launcher: str) -> None:
    script = r"""
print(f"I am {rank}\r", end="")
wait_for("seen")
print("err", file=sys.stderr)
print(f"é {rank}")
"""
    process = train.start(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], TIMEOUT_S)[0], "nothing was seen while rank 0 ran"
    assert os.read(process.stdout.fileno(), 100) == b"I am 0\r"
    (train.folder / "seen").write_text("")
    done = finish(process)
    assert done.stdout == "err\né 0\n"
    assert done.returncode == 0
    assert "é 1" not in done.stdout + done.stderr
    for rank in (0, 1):
        (log,) = train.folder.glob(f"hpcdl-logs/*/rank-{rank:04d}.log")
        assert log.read_bytes() == f"I am {rank}\rerr\né {rank}\n".encode()


def test_the_first_failing_rank_is_told_once_with_host_and_log(train: Train, launcher: str) -> None:
    script = """
if rank == 1:
    raise ValueError("no data")
wait_for("never")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert f"hpcdl: rank 1 on {os.uname().nodename} failed: ValueError: no data" in told
    assert told.count("Traceback (most recent call last)") == 1
    assert "rank-0001.log" in told
    assert "ValueError: no data" in train.log(1)
    assert not any(noise in told for noise in ("mpirun", "prterun", "Primary job", "-----"))


def test_a_rank_that_fails_because_another_one_died_is_not_blamed(train: Train, launcher: str) -> None:
    script = """
if rank == 1:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)   # mpirun ends survivors; this one reports first
    note("up")
    wait_for("down")
    raise ValueError("the cause")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
wait_for("up")
note("down")
import glob
while not glob.glob(os.environ["HPCDL_STATUS_DIR"] + "/rank-0001.json"):
    time.sleep(0.001)
raise RuntimeError("Horovod has been shut down. This was caused by an exception on one of the ranks")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    assert "rank 1" in done.stderr
    assert "failed: ValueError: the cause" in done.stderr
    assert "has been shut down" not in done.stdout + done.stderr


@pytest.mark.parametrize(("waiting", "has_used"), [(0, True), (1, True), (0, False)])
def test_a_rank_that_waits_for_one_which_has_ended_the_script_is_told_to_call_on_every_rank(
    train: Train, launcher: str, waiting: int, has_used: bool
) -> None:
    script = f"""
if not {has_used}:
    del os.environ["HPCDL_USED_BY"]  # run.barrier, say, is no use
if rank == {waiting}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while not list(Path(os.environ["HPCDL_STATUS_DIR"]).glob("rank-*.ended")):
        time.sleep(0.001)
    raise RuntimeError("Horovod has been shut down. This was caused by an exception on one of the ranks")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher, "--restarts", "3")
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()[1:]
    assert told.startswith(
        f"hpcdl: what ranks do together every rank must call; received a call on rank {waiting}, in line "
    )
    assert f"script.py, while rank {1 - waiting} had ended the script; call run.save" in told
    assert done.stdout == ""


def test_the_failure_of_rank_0_whose_output_is_on_the_screen_is_told_once_too(
    train: Train, launcher: str
) -> None:
    script = """
if rank == 0:
    print("step 1")
    raise ValueError("no data")
wait_for("never")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert done.stdout == "step 1\n"
    assert told.count("Traceback (most recent call last)") == 1
    assert train.log(0).count("Traceback (most recent call last)") == 1


@pytest.mark.parametrize(
    ("death", "status", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
        ("os.abort()", 134, "was killed by SIGABRT"),
        ("os._exit(3)", 3, "ended without a word: exit status 3"),
    ],
)
def test_a_rank_that_dies_without_a_word_is_told_from_outside(
    train: Train, launcher: str, death: str, status: int, words: str
) -> None:
    script = f"""
print("last words of", rank)
if rank == 1:
    {death}
signal.signal(signal.SIGTERM, signal.SIG_DFL)
wait_for("never")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    assert done.returncode == status
    assert f"hpcdl: rank 1 on {os.uname().nodename} {words}" in done.stderr
    assert "  | last words of 1" in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        ("BadInput('the rule; the way out')", 2, "hpcdl: the rule; the way out"),
        (
            "ValueError('no data')",
            1,
            f"hpcdl: rank 1 on {os.uname().nodename} failed: ValueError: no data",
        ),
    ],
)
def test_what_a_rank_said_that_could_not_write_its_report_is_told_from_its_log(
    train: Train, launcher: str, error: str, status: int, told: str
) -> None:
    script = f"""
from hpcdl.common.errors import BadInput
if rank == 1:
    os.environ["HPCDL_STATUS_DIR"] = str(here / "gone")  # stands for a full disk
    raise {error}
signal.signal(signal.SIGTERM, signal.SIG_DFL)
wait_for("never")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    assert done.returncode == status
    assert done.stderr.splitlines()[1] == told


@pytest.mark.parametrize("status", [0, 85])
def test_what_all_ranks_leave_with_is_passed_on_and_nothing_is_told(
    train: Train, launcher: str, status: int
) -> None:
    script = f"""
note(f"done-{{rank}}")
wait_for("done-0"); wait_for("done-1")
sys.exit({status})
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher, "--restarts", "3")
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1, done.stderr


#: What a script that leaves must have done to have trained; TensorFlow's own words are not of interest.
COMPUTE = """
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
import tensorflow
tensorflow.zeros(1)
os.dup2(stderr, 2)
"""


@pytest.mark.parametrize("ending", ["pass", f"{COMPUTE}sys.exit()"], ids=["ends", "leaves"])
def test_a_script_that_did_not_use_hpcdl_on_several_ranks_is_told_the_three_lines(
    train: Train, ending: str
) -> None:
    script = (
        f"del os.environ['HPCDL_USED_BY']\n{ending}"  # a plain script, which trains on each rank by itself
    )
    assert train.run(script).returncode == 0  # alone it may do as it likes
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", "gloo")
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()[1:]
    assert told.startswith("hpcdl: a script that runs on several ranks must train through hpcdl; received ")
    assert told.index("hpcdl.init()") < told.index("run.scope()") < told.index("run.fit(model")
    planned = train.run(script, "-n", "2", "--oversubscribe", "--dry-run")
    assert (planned.returncode, planned.stderr) == (2, told + "\n")


@pytest.mark.parametrize("leaving", ["argparse.ArgumentParser().parse_args(['--help'])", "sys.exit(0)"])
def test_a_script_that_leaves_well_before_it_computes_has_done_nothing_wrong(
    train: Train, leaving: str
) -> None:
    script = f"del os.environ['HPCDL_USED_BY']\nimport argparse\n{leaving}"
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", "gloo")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    planned = train.run(script, "-n", "2", "--oversubscribe", "--dry-run")
    assert (planned.returncode, planned.stderr) == (0, "")


def test_bad_input_that_only_the_ranks_can_see_is_one_line_and_leaves_no_logs(
    train: Train, launcher: str
) -> None:
    script = """
from hpcdl.common.errors import BadInput
raise BadInput("the model must be compiled")
"""
    done = train.run(script, "-n", "2", "--oversubscribe", "--launcher", launcher, "--restarts", "3")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == ["hpcdl: the model must be compiled"]
    assert done.stdout == ""
    assert sorted(os.listdir(str(train.folder))) == ["script.py"]


#: Ranks with a child of their own each, whose process ids are noted.
BUSY = """
child = subprocess.Popen(["sleep", "600"])
note(f"up-{rank}", [os.getpid(), child.pid])
wait_for("never")
"""


def started_pids(train: Train) -> List[int]:
    train.wait_for("up-0", "up-1")
    return [pid for rank in (0, 1) for pid in train.noted(f"up-{rank}")]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_nothing_behind(train: Train, launcher: str, number: int, status: int) -> None:
    process = train.start(BUSY, "-n", "2", "--oversubscribe", "--launcher", launcher)
    pids = started_pids(train)
    process.send_signal(number)
    assert finish(process).returncode == status
    assert [pid for pid in pids if is_alive(pid)] == []


def test_a_second_ctrl_c_ends_ranks_that_do_not_listen(train: Train, launcher: str) -> None:
    script = """
signal.signal(signal.SIGINT, lambda *_: note(f"heard-{rank}"))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
    process = train.start(script + BUSY, "-n", "2", "--oversubscribe", "--launcher", launcher)
    pids = started_pids(train)
    process.send_signal(signal.SIGINT)
    train.wait_for("heard-0", "heard-1")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process).returncode == 130
    assert [pid for pid in pids if is_alive(pid)] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_ranks_hear_a_signal_once_and_may_agree_to_be_requeued(
    train: Train, launcher: str, number: int
) -> None:
    script = f"""
heard = []
signal.signal({int(number)}, lambda *_: heard.append(1))
note(f"up-{{rank}}", [])
while not heard:
    time.sleep(0.01)
note(f"heard-{{rank}}")
wait_for("heard-0"); wait_for("heard-1")
time.sleep(0.2)
note(f"times-{{rank}}", len(heard))
wait_for("times-0"); wait_for("times-1")
sys.exit(85)
"""
    process = train.start(script, "-n", "2", "--oversubscribe", "--launcher", launcher)
    train.wait_for("up-0", "up-1")
    process.send_signal(number)
    done = finish(process)
    assert done.returncode == 85, done.stderr
    assert [train.noted("times-0"), train.noted("times-1")] == [1, 1]


@pytest.mark.parametrize("heard", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"], ids=["", "notes"])
def test_ranks_end_when_hpcdl_itself_is_killed(heard: str, train: Train, launcher: str) -> None:
    process = train.start(heard + BUSY, "-n", "2", "--oversubscribe", "--launcher", launcher)
    pids = started_pids(train)
    ranks = pids[::2]
    process.kill()
    finish(process)
    ended = wait_until(lambda: not any(is_alive(pid) for pid in ranks))
    for pid in pids[1::2]:  # their children are nobody's any more
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    assert ended


def test_a_run_whose_rank_was_killed_is_started_again_but_not_afresh(train: Train, launcher: str) -> None:
    script = """
note(f"fresh-{rank}-{(here / 'first').exists()}", os.environ.get("HPCDL_FRESH"))
if rank == 1 and not (here / "first").exists():
    wait_for("fresh-0-False")
    note("first")
    os.kill(os.getpid(), signal.SIGKILL)
if not (here / "first").exists() and rank == 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    wait_for("never")
print("done", rank)
"""
    done = train.run(
        script, "-n", "2", "--oversubscribe", "--launcher", launcher, "--restarts", "2", "--fresh"
    )
    assert done.returncode == 0, done.stderr
    assert train.noted("fresh-0-False") == "1"
    assert train.noted("fresh-0-True") is None
    assert done.stdout.endswith("done 0\n")
    assert "starting again from the last checkpoint, since rank 1 on" in done.stderr
    assert "was killed by SIGKILL" in done.stderr


def test_restarts_are_limited(train: Train, launcher: str) -> None:
    done = train.run("sys.exit(7)", "-n", "2", "--oversubscribe", "--launcher", launcher, "--restarts", "2")
    assert done.returncode == 7
    assert done.stderr.count("starting again") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_wish_to_end_that_comes_as_the_last_of_a_failed_run_is_ended_counts(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = Ranks.kill

    def interrupted(ranks: Ranks) -> None:
        os.kill(os.getpid(), number)
        kill(ranks)

    monkeypatch.setattr(Ranks, "kill", interrupted)
    before = signal.signal(number, signal.default_int_handler)  # it may be ignored, as a shell's & has it
    argv = [sys.executable, "-c", "raise SystemExit(7)"]
    try:
        outcome = run_ranks(argv, Placement(1, 1, None, False), tmp_path, os.environ)
    finally:
        signal.signal(number, before)
    assert (outcome.status, outcome.stopped_by) == (128 + number, number)
    assert not outcome.can_restart


def test_that_ranks_could_not_be_watched_is_told_from_a_start_that_failed(tmp_path: Path) -> None:
    code = "import os, time; os.mkdir(os.environ['HPCDL_STATUS_DIR'] + '/rank-0000.json'); time.sleep(60)"
    with pytest.raises(
        RanksLost, match="^the ranks were ended, as they could not be watched any more: .*Is a dir"
    ):
        run_ranks([sys.executable, "-c", code], Placement(1, 1, None, False), tmp_path, os.environ)
