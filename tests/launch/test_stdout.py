"""A launcher whose standard output takes nothing any more, or not now: real ranks, a pipe, a terminal, a full disk."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30
LAUNCH = """
import json, os, signal, sys
from pathlib import Path
from hpcdl.launch.placement import Placement
from hpcdl.launch.ranks import run_ranks
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests with & has it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup has this one
outcome = run_ranks([sys.executable, "rank.py"], Placement(1, 1, None, False), Path("logs"), os.environ)
Path("new").write_text(json.dumps([outcome.status, outcome.stopped_by]))
os.replace("new", "outcome")
print("over", file=sys.stderr, flush=True)
"""
#: Writes for ever; saves for a while at SIGTERM.
TALKS = """
import signal, sys, time
from pathlib import Path
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
while not asked or time.monotonic() < asked[0] + 0.4:
    print("step " * 400, flush=True)
    Path("up").touch()
    time.sleep(0.002)
Path("saved").touch()
sys.exit(85)
"""
#: Leaves more behind than a pipe or a terminal holds.
ENDS = r"""
import os
text = b"".join(b"line %d of the log\n" % number for number in range(20000))
while text:
    text = text[os.write(1, text):]
os._exit(0)
"""


class Launcher:
    """Starts ranks from a process of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: List[subprocess.Popen[bytes]] = []
        (folder / "logs").mkdir()
        (folder / "launch.py").write_text(LAUNCH)

    def start(self, rank: str, stdout: int, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        (self.folder / "rank.py").write_text(rank)
        process = subprocess.Popen(
            [sys.executable, "launch.py"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def wait_for(self, name: str) -> None:
        assert becomes(lambda: (self.folder / name).exists()), f"no {name} in {os.listdir(str(self.folder))}"

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def outcome(self) -> Any:
        return json.loads((self.folder / "outcome").read_text())

    def log(self) -> bytes:
        return (self.folder / "logs" / "rank-0000.log").read_bytes()


class Reader:
    """Who reads what the launcher writes, and may not do it."""

    def __init__(self, kind: str) -> None:
        if kind == "socket":
            self.end, self.written = (end.detach() for end in socket.socketpair())
        else:
            self.end, self.written = pty.openpty() if kind == "terminal" else os.pipe()

    def read(self) -> bytes:
        """Reads to the end; as it was written, though a terminal ends its lines with two characters."""
        self.close_written()
        read = b""
        while select.select([self.end], [], [], TIMEOUT_S)[0]:
            try:
                part = os.read(self.end, 1 << 16)
            except OSError:  # the end, of a terminal
                break
            if not part:
                break
            read += part
        return read.replace(b"\r\n", b"\n")

    def close_written(self) -> None:
        if self.written >= 0:
            os.close(self.written)
        self.written = -1


def becomes(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    for process in launcher.started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(params=["pipe", "terminal", "socket"])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    reader = Reader(request.param)
    yield reader
    reader.close_written()
    os.close(reader.end)


def test_ranks_save_when_the_terminal_is_gone(launcher: Launcher) -> None:
    (launcher.folder / "rank.py").write_text(TALKS)
    child, terminal = (
        pty.fork()
    )  # it is the terminal of the child's session, as that of a shell behind ssh is
    if child == 0:
        os.chdir(str(launcher.folder))
        os.execve(sys.executable, [sys.executable, "launch.py"], {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        while not launcher.has("up"):
            os.read(terminal, 1 << 16)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    assert launcher.has("saved")
    assert launcher.outcome() == [85, signal.SIGHUP]


@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT], ids=["", "with-stderr"])
def test_a_run_goes_on_where_its_output_has_no_room(launcher: Launcher, stderr: int) -> None:
    rank = (
        "import time, pathlib; print('epoch 1', flush=True); time.sleep(1); pathlib.Path('trained').touch()"
    )
    with open("/dev/full", "wb") as full:
        process = launcher.start(rank, full.fileno(), stderr)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert launcher.has("trained")
    assert launcher.outcome() == [0, None]
    assert process.returncode == 0  # also where the last words had no room
    if stderr == subprocess.PIPE:
        assert b"hpcdl: standard output takes nothing any more: No space left on device; " in told


def test_a_reader_who_leaves_does_not_end_the_run(launcher: Launcher) -> None:
    end, written = os.pipe()
    os.close(end)
    process = launcher.start(ENDS, written, subprocess.STDOUT)
    os.close(written)
    assert process.wait(TIMEOUT_S) == 0
    assert launcher.outcome() == [0, None]


def test_what_has_no_room_is_not_waited_for(reader: Reader) -> None:
    # Writes of many lengths, since a terminal takes the first part of one and waits with the rest.
    code = """
import sys
from hpcdl.launch.stdout import write_to_stdout
length = 1
while write_to_stdout(b"line\\n" * length) == 5 * length:
    length = 1 + length * 7 % 1999
sys.exit(7)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=reader.written)
    try:
        assert process.wait(TIMEOUT_S) == 7
    finally:
        process.kill()
        process.wait()


def test_signals_are_passed_on_while_nobody_reads(launcher: Launcher, reader: Reader) -> None:
    process = launcher.start(TALKS, reader.written)
    launcher.wait_for("up")
    time.sleep(1)  # by then there is no room
    process.send_signal(signal.SIGTERM)
    launcher.wait_for("saved")
    assert process.wait(TIMEOUT_S) == 0, "it waits for a reader, though it was asked to end"
    assert launcher.outcome() == [85, signal.SIGTERM]


def test_what_is_left_at_the_end_is_shown_when_the_reader_goes_on(launcher: Launcher, reader: Reader) -> None:
    process = launcher.start(ENDS, reader.written)
    assert becomes(
        lambda: (launcher.folder / "logs" / "rank-0000.log").exists() and len(launcher.log()) > 300000
    )
    time.sleep(1)
    assert process.poll() is None
    assert reader.read() == launcher.log()
    assert process.wait(TIMEOUT_S) == 0
    assert launcher.outcome() == [0, None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_reader(launcher: Launcher, reader: Reader, number: int) -> None:
    process = launcher.start(ENDS, reader.written)
    assert becomes(
        lambda: (launcher.folder / "logs" / "rank-0000.log").exists() and len(launcher.log()) > 300000
    )
    time.sleep(1)
    assert not launcher.has("outcome")
    process.send_signal(number)
    process.wait(TIMEOUT_S)
    assert launcher.outcome() == [0, None]  # all was done
