"""Says how far a transfer is: one line that changes on a terminal, a line for each tenth elsewhere.

Synopsis::

    progress = Progress("https://.../mnist.npz", 11_490_434, sys.stderr)
    progress.show(5_000_000)                    # "hpcdl: https://.../mnist.npz  5.0 of 11.5 MB, 43 %"
    progress.end(11_490_434)
"""

from __future__ import annotations

from typing import Optional, TextIO

_MEGABYTE = 1e6
#: A line for each so many bytes where the length is not known.
_STEP_BYTES = 20_000_000


class Progress:
    """Of one transfer.

    Args:
        what: Is fetched.
        num_bytes: In all; None: not known.
        stream: To write to.
    """

    def __init__(self, what: str, num_bytes: Optional[int], stream: TextIO) -> None:
        self._what, self._num_bytes, self._stream = what, num_bytes, stream
        self._is_terminal = stream.isatty()
        self._shown = ""
        self._tenth = 0

    def show(self, done: int) -> None:
        """Says that so many bytes are here."""
        tenth = done // _STEP_BYTES if not self._num_bytes else 10 * done // self._num_bytes
        if self._is_terminal:
            self._write(self._line(done), "\r")
        elif tenth > self._tenth:
            self._tenth = tenth
            self._write(self._line(done), "\n")

    def end(self, done: int) -> None:
        """Says that all is here."""
        if self._is_terminal or self._shown != self._line(done):
            self._write(self._line(done), "\n")

    def _line(self, done: int) -> str:
        here = f"{done / _MEGABYTE:.1f}"
        if not self._num_bytes:
            return f"hpcdl: {self._what}  {here} MB"
        percent = 100 * done // self._num_bytes
        return f"hpcdl: {self._what}  {here} of {self._num_bytes / _MEGABYTE:.1f} MB, {percent} %"

    def _write(self, line: str, end: str) -> None:
        if line != self._shown or end == "\n":
            self._shown = line
            print(line, end=end, file=self._stream, flush=True)
