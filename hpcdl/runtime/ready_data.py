"""Finds, checks and fetches ready data sets for ``hpcdl data``: the half that reads them. Loads no TensorFlow.

Synopsis::

    python -m hpcdl.runtime.ready_data list                 # JSON
    python -m hpcdl.runtime.ready_data fetch mnist --to /scratch/data
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from hpcdl.common.data_sets import Spec, names, spec_of
from hpcdl.common.data_words import DataCommand, parse_data
from hpcdl.common.errors import EXIT_DONE, EXIT_INTERRUPTED, BadInput, HpcdlError
from hpcdl.common.saying import say

_MEGABYTE = 1e6


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Runs one command and gives its exit status."""
    try:
        command = parse_data(argv)
        if command.action == "list":
            print(json.dumps([describe(spec_of(name), command.data_dir, environ) for name in names()]))
        else:
            fetch_all(command, environ)
    except HpcdlError as error:
        say(str(error))
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        say(
            f"data sets are read by NumPy; received a Python without it ({sys.executable}); pip install numpy"
        )
        return BadInput.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_DONE


def describe(spec: Spec, data_dir: Optional[str], environ: Mapping[str, str]) -> Dict[str, Any]:
    """Says of a data set what it is, where it is found, and whether it is what it should be.

    Raises:
        BadInput: A folder that the user named is none, or lacks files.
    """
    from hpcdl.runtime.data_files import cache_place, find, places
    from hpcdl.runtime.data_reading import read

    said: Dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "num_classes": spec.num_classes,
        "num_train": spec.num_train,
        "num_test": spec.num_test,
        "state": "not here",
        "place": None,
        "files": [],
        "num_bytes": None,
        "problem": None,
        "debian_package": spec.debian_package,
        "urls": list(spec.download.urls().values()) if spec.download is not None else [],
    }
    files = find(spec, places(spec, data_dir, environ))
    if files is None:
        return said
    said.update(place=files.place.label, files=[str(path) for path in files.paths], num_bytes=files.num_bytes)
    try:
        read(spec, files, cache_place(environ).folder)
    except BadInput as problem:
        return {**said, "state": "wrong", "problem": str(problem)}
    return {**said, "state": "right"}


def fetch_all(command: DataCommand, environ: Mapping[str, str]) -> None:
    """Fetches data sets one after the other, and says where each one is.

    Raises:
        BadInput: One cannot be had, or is not what it should be.
    """
    from hpcdl.runtime.data_files import Place, cache_place, find, places
    from hpcdl.runtime.data_reading import read
    from hpcdl.runtime.datasets import fetch

    cache = cache_place(environ)
    for spec in map(spec_of, command.names):
        target, looked_in = cache, places(spec, None, environ)
        cure, instead = "set HPCDL_CACHE to one, or pass --to DIR", "pass --to DIR, and it is fetched there"
        if command.to is not None:
            target = Place("--to", Path(command.to))
            looked_in = [target]
            cure = instead = "pass another --to"
        found = find(spec, looked_in)
        files = found or fetch(spec, target, looked_in, cure)
        read(spec, files, cache.folder, instead)
        how = "is there already" if found is not None else "fetched"
        size = f"{files.num_bytes / _MEGABYTE:.1f} MB"
        print(
            f"{spec.name}: {how}, {files.place.label}: {files.paths[0].parent} ({size}, SHA-256 right)",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
