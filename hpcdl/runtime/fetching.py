"""Gets files from an address on the network, whole and checked, or not at all.

Synopsis::

    download({"mnist.npz": "https://.../mnist.npz"}, target=cache / "mnist", check=verify)
"""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, Callable, Mapping, Sequence

from hpcdl.runtime.progress import Progress

#: A host that does not answer is given up after this time: compute nodes often have no way out at all.
CONNECT_TIMEOUT_S = 20
_CHUNK_BYTES = 1 << 18


class NotFetched(Exception):
    """A way of getting the data did not work here; the text is the reason, without a full stop."""


def download(urls: Mapping[str, str], target: Path, check: Callable[[Path], object]) -> None:
    """Puts files into the folder ``target``.

    Args:
        urls: address of each file, by its name.
        target: folder on this machine; each file appears in it whole or not at all.
        check: called with the folder of the files before anything is put in place; raises if they are wrong.

    Raises:
        NotFetched: no network, or the server refused.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch_name:
        scratch = Path(scratch_name).resolve()
        for name, url in urls.items():
            with _opened(url) as answer, open(scratch / name, "wb") as file:
                _copy(answer, file, url)
        check(scratch)
        put_in_place(scratch, list(urls), target)


def _opened(url: str) -> Any:
    try:
        return urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        raise NotFetched(f"{url}: {one_line(str(getattr(error, 'reason', error)))}") from error


def _copy(answer: Any, file: BinaryIO, url: str) -> None:
    """Copies an answer into a file, and says how far it is."""
    length = answer.headers.get("Content-Length")
    num_bytes = int(length) if length is not None and length.isdigit() else None
    progress = Progress(url, num_bytes, sys.stderr)
    done = 0
    while True:
        try:
            chunk = answer.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise NotFetched(f"{url}: {one_line(str(error))}") from error
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        progress.show(done)
    progress.end(done)
    if num_bytes is not None and done != num_bytes:
        raise NotFetched(f"{url}: ended after {done} of {num_bytes} bytes")


def put_in_place(folder: Path, files: Sequence[str], target: Path) -> None:
    """Moves files from one folder into another of the same file system."""
    target.mkdir(exist_ok=True)
    for file in files:
        os.replace(folder / file, target / file)


def one_line(text: str) -> str:
    """Puts a text into one line."""
    return " ".join(text.split())
