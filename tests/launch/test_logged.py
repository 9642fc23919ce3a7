"""Long commands: life is shown, the log is kept, a failure tells why, nothing is left running."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcdl.common.errors import HpcdlError
from hpcdl.launch.logged import Screen, build_progress, elapsed, run_logged, telling_lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_output_goes_to_the_log_and_the_screen_says_when_it_is_done(tmp_path: Path) -> None:
    stream, log = io.StringIO(), tmp_path / "new" / "x.log"
    run_logged([sys.executable, "-c", "print('inside')"], title="baking", log=log, screen=Screen(stream))
    assert "inside" in log.read_text()
    first, last = stream.getvalue().splitlines()
    assert first == "baking ..."
    assert last.startswith("baking: done in ")


def test_the_output_of_an_earlier_command_in_the_same_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for word in ("one", "two"):
        run_logged(["echo", word], title=word, log=log, screen=Screen(io.StringIO()))
    assert log.read_text().split("\n")[1:3] == ["$ echo one", "one"]
    assert log.read_text().endswith("$ echo two\ntwo\n")


def test_a_failure_shows_the_telling_lines_and_names_the_log(tmp_path: Path) -> None:
    stream, log = io.StringIO(), tmp_path / "x.log"
    code = "print('noise'); print('a.cc:3: fatal error: mpi.h: No such file'); raise SystemExit(3)"
    with pytest.raises(
        HpcdlError, match=r"^baking failed \(exit status 3, after .* s\); the whole log: "
    ) as caught:
        run_logged([sys.executable, "-c", code], title="baking", log=log, screen=Screen(stream))
    assert str(log) in str(caught.value)
    assert [line for line in stream.getvalue().splitlines() if line.startswith("  | ")] == [
        "  | a.cc:3: fatal error: mpi.h: No such file"
    ]


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HpcdlError, match="cannot start /no/such/tool: No such file"):
        run_logged(["/no/such/tool"], title="x", log=tmp_path / "x.log", screen=Screen(io.StringIO()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_ends_the_command_and_its_children_and_leaves_no_temporary_folder(
    number: int, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
import signal, sys, tempfile
from pathlib import Path
from hpcdl.launch.logged import Screen, run_logged
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests with & has it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup has this one
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which is coverage's where that is measured
with tempfile.TemporaryDirectory(dir="{tmp_path}", prefix="building-"):
    run_logged(["sh", "-c", "sleep 60 & echo $! > {pid_file}; wait"], title="x", log=Path("{tmp_path}/x.log"),
               screen=Screen(sys.stderr))
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        try:
            grandchild = int(_wait_for_text(pid_file))
            child.send_signal(number)
            status = child.wait(10)
        finally:
            child.kill()
    assert _ends_within(grandchild, seconds=5)
    assert list(tmp_path.glob("building-*")) == []
    assert status == (-signal.SIGINT if number == signal.SIGINT else 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_that_comes_while_the_command_is_started_ends_it(number: int, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
import os, signal, subprocess, sys
from pathlib import Path
from hpcdl.launch import logged
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
plain = subprocess.Popen
def start(*arguments, **named):
    child = plain(*arguments, **named)
    os.kill(os.getpid(), {int(number)})
    return child
subprocess.Popen = start
command = ["sh", "-c", "echo $$ > {pid_file}; exec sleep 60"]
logged.run_logged(command, title="x", log=Path("{tmp_path}/x.log"), screen=logged.Screen(sys.stderr))
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=30, check=False)
    assert done.returncode == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    text = pid_file.read_text() if pid_file.exists() else ""  # it may have been ended before it wrote
    assert not text.strip() or _ends_within(int(text), seconds=5)


def test_a_stop_that_comes_again_does_not_spare_a_command_that_ignores_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
import signal, sys
from pathlib import Path
from hpcdl.launch import logged
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which is coverage's where that is measured
logged._GRACE_SECONDS = 2.0
command = "trap '' TERM; echo $$ > {pid_file}; while :; do sleep 0.1; done"
logged.run_logged(["sh", "-c", command], title="x", log=Path("{tmp_path}/x.log"), screen=logged.Screen(sys.stderr))
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        try:
            command = int(_wait_for_text(pid_file))
            for _ in range(2):
                child.send_signal(signal.SIGTERM)
                time.sleep(0.5)
            assert child.wait(10) == 128 + signal.SIGTERM
        finally:
            child.kill()
    assert _ends_within(command, seconds=1)


def test_handlers_of_signals_are_left_as_they_were(tmp_path: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    run_logged(["true"], title="x", log=tmp_path / "x.log", screen=Screen(io.StringIO()))
    with pytest.raises(HpcdlError):
        run_logged(["/no/such/tool"], title="x", log=tmp_path / "x.log", screen=Screen(io.StringIO()))
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_command_may_be_run_from_another_thread(tmp_path: Path) -> None:
    screen = Screen(io.StringIO())
    with ThreadPoolExecutor(1) as threads:
        threads.submit(run_logged, ["true"], title="x", log=tmp_path / "x.log", screen=screen).result()


def test_in_a_file_progress_is_a_line_every_20_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    screen = Screen(stream, clock)
    screen.start("building ...")
    for clock.now in (1.0, 19.0, 20.0, 21.0, 40.0):
        screen.progress(f"building {clock.now:.0f}")
    assert stream.getvalue() == "building ...\nbuilding 20\nbuilding 40\n"


def test_on_a_terminal_one_line_is_rewritten_and_then_cleared() -> None:
    stream, clock = Terminal(), Clock()
    screen = Screen(stream, clock)
    screen.start("building ...")
    clock.now = 1.0
    screen.progress("building 1 s")
    screen.say("done")
    assert stream.getvalue() == "\r\x1b[Kbuilding ...\r\x1b[Kbuilding 1 s\r\x1b[Kdone\n"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("[1/60] Building\n[12/60] Building CXX object\n", "20 %"),
        ("[  3%] Building\n[ 43%] Building\nwarning: [x]\n", "43 %"),
        ("Collecting horovod\n", ""),
    ],
)
def test_the_progress_of_ninja_and_of_make_is_read(output: str, words: str) -> None:
    assert build_progress(output) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.44, "0.4 s"), (42.2, "42 s"), (59.7, "1 min 00 s"), (125, "2 min 05 s")]
)
def test_durations_are_written_for_people(seconds: float, words: str) -> None:
    assert elapsed(seconds) == words


def test_flags_that_look_like_errors_are_not_telling() -> None:
    text = "g++ -Werror=format -c a.cc\na.cc:1: error: expected ';'\n"
    assert telling_lines(text) == ["a.cc:1: error: expected ';'"]


def test_without_a_telling_line_the_last_ones_are_shown() -> None:
    assert telling_lines("a\nb\n\nc\n", num_lines=2) == ["b", "c"]


def _wait_for_text(path: Path, seconds: float = 20) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.02)
    raise TimeoutError(path)


def _ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.02)
    return False
