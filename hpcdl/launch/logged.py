"""Runs a command that takes minutes: its output goes to a log, one line on the screen shows that it moves.

On a terminal the line is rewritten in place; elsewhere one is written every 20 seconds, so that a log of CI
shows life too. If the command fails, the telling lines of its log are shown and the log stays.

Synopsis::

    run_logged([python, "setup.py", "bdist_wheel"], title="building Horovod 0.28.1", log=folder / "build.log",
               screen=Screen(sys.stderr), read_progress=build_progress)
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, TextIO, Type

from hpcdl.common.errors import HpcdlError

_POLL_SECONDS = 0.2
_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 20.0
_GRACE_SECONDS = 5.0
_TELLING = re.compile(
    r"\berror\b|\bfatal\b|undefined reference|no space left|killed|no matching distribution|cannot find",
    re.IGNORECASE,
)
_NOISE = re.compile(r"-Werror|error_code|Werror=|errors? = 0|subprocess-exited-with-error|note: this error")


class Screen:
    """One stream for people: lines that stay, and one line at the bottom that is rewritten.

    Args:
        stream: Where to write; rewriting happens only if it is a terminal.
        clock: Seconds, as `time.monotonic` gives them.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._due = 0.0
        self._open = False

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        self._end_progress()
        self._stream.write(text + "\n")
        self._stream.flush()

    def start(self, text: str) -> None:
        """Shows what begins now."""
        if self._is_terminal:
            self._rewrite(text)
        else:
            self.say(text)
        self._due = self._clock() + (_TERMINAL_SECONDS if self._is_terminal else _FILE_SECONDS)

    def progress(self, text: str) -> None:
        """Shows how far it is; calls that come too early are left out."""
        if self._clock() < self._due:
            return
        self.start(text)

    def _rewrite(self, text: str) -> None:
        self._stream.write("\r\x1b[K" + text)
        self._stream.flush()
        self._open = True

    def _end_progress(self) -> None:
        if self._open:
            self._stream.write("\r\x1b[K")
            self._open = False


def run_logged(
    argv: Sequence[str],
    *,
    title: str,
    log: Path,
    screen: Screen,
    environ: Optional[Mapping[str, str]] = None,
    cwd: Optional[Path] = None,
    read_progress: Callable[[str], str] = lambda text: "",
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Runs a command to its end, with its output appended to a log.

    Args:
        argv: The command.
        title: What is being done, for example "building Horovod 0.28.1".
        log: File that the output is appended to; it is never removed here.
        screen: Where progress is shown.
        environ: The command's environment; ours if None.
        cwd: Its working folder; ours if None.
        read_progress: Gives a word such as "43 %" from the end of the log, or "".
        clock: Seconds, as `time.monotonic` gives them.

    Raises:
        HpcdlError: It did not exit with 0; the telling lines of the log have been shown.
        SystemExit: SIGTERM or SIGHUP came; the command has been ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = clock()
    with log.open("ab") as sink:
        sink.write(("\n$ " + " ".join(argv) + "\n").encode())
        sink.flush()
        begin = sink.tell()
        screen.start(f"{title} ...")
        with _own_session(argv, sink.fileno(), environ, cwd) as child:
            while True:
                try:
                    exit_status = child.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    words = [title, elapsed(clock() - started), read_progress(_tail(log, begin))]
                    screen.progress("  ".join(word for word in words if word))
    if exit_status != 0:
        for line in telling_lines(_tail(log, begin, num_bytes=400_000)):
            screen.say("  | " + line)
        ending = f"exit status {exit_status}, after {elapsed(clock() - started)}"
        raise HpcdlError(f"{title} failed ({ending}); the whole log: {log}")
    screen.say(f"{title}: done in {elapsed(clock() - started)}")


def elapsed(seconds: float) -> str:
    """Writes a duration for people: "0.4 s", "42 s", "2 min 05 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def build_progress(text: str) -> str:
    """Finds how far a build by Ninja ("[12/60] ...") or make ("[ 20%] ...") is: "20 %", or "" if unknown."""
    marks = re.findall(r"^\[ *(\d+)(?:/(\d+)|%)\]", text, re.MULTILINE)
    if not marks:
        return ""
    part, whole = marks[-1]
    return f"{100 * int(part) // max(int(whole or 100), 1)} %"


def telling_lines(text: str, num_lines: int = 12) -> List[str]:
    """Picks the lines of a failed command's output that most likely say why; its last lines if none does."""
    lines = [line.rstrip()[:300] for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line) and not _NOISE.search(line)]
    return telling[:num_lines] if telling else lines[-num_lines:]


def _tail(log: Path, begin: int, num_bytes: int = 20_000) -> str:
    with log.open("rb") as source:
        source.seek(max(begin, source.seek(0, os.SEEK_END) - num_bytes))
        return source.read().decode(errors="replace")


@contextlib.contextmanager
def _own_session(
    argv: Sequence[str], sink: int, environ: Optional[Mapping[str, str]], cwd: Optional[Path]
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a command as a session of its own, and ends all of it if we leave early (Ctrl-C, SIGTERM, SIGHUP)."""
    with _Stops() as stops:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if environ is None else dict(environ),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise HpcdlError(f"cannot start {argv[0]}: {error.strerror or error}") from error
        try:
            stops.let_in()
            yield child
        finally:
            stops.keep_out()
            if child.poll() is None:
                _end_session(child)


@contextlib.contextmanager
def on_our_screen(argv: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a command that stays in our session; if SIGTERM or SIGHUP ends us, we end it first.

    Ctrl-C reaches it from the terminal, as it reaches us.

    Args:
        argv: The command.
        how: What else `subprocess.Popen` takes.

    Raises:
        SystemExit: SIGTERM or SIGHUP came; the command has been ended.
    """
    with _Stops() as stops, subprocess.Popen(list(argv), **how) as child:
        try:
            stops.let_in()
            yield child
        except SystemExit:
            child.terminate()
            raise
        finally:
            stops.keep_out()


#: What a signal does in Python where nobody has said otherwise.
_PLAIN: Mapping[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


class _Stops:
    """Makes SIGTERM and SIGHUP end this process as SystemExit, so that what it has begun is cleared away.

    A signal that comes while they are kept out, Ctrl-C too, is heeded as soon as they are let in, or at the end. One
    that is ignored or has a handler stays with that, and only the main thread may have any.
    """

    def __init__(self) -> None:
        self._own: List[int] = []
        self._came: Optional[int] = None
        self._are_let_in = False

    def __enter__(self) -> _Stops:
        if threading.current_thread() is threading.main_thread():
            for number, plain in _PLAIN.items():
                if signal.getsignal(number) == plain:
                    signal.signal(number, self._note)
                    self._own.append(number)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for number in self._own:
            signal.signal(number, _PLAIN[number])
        if self._came is not None and kind not in (SystemExit, KeyboardInterrupt):
            self._leave(self._came)

    def let_in(self) -> None:
        self._are_let_in = True
        if self._came is not None:
            self._leave(self._came)

    def keep_out(self) -> None:
        self._are_let_in = False

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self._came = self._came or number
        if self._are_let_in:
            self._leave(self._came)

    def _leave(self, number: int) -> None:
        self._are_let_in = False  # another one must not cut the clearing away short
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _end_session(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
            return
