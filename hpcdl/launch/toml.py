"""Reads TOML files; what is wrong in one is said in one line.

Synopsis::

    tree = read_toml(Path("~/.config/hpcdl/config.toml").expanduser())
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict

from hpcdl.common.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> Dict[str, Any]:
    """Reads a file.

    Raises:
        BadInput: It cannot be read or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return dict(tomllib.load(file))
    except OSError as problem:
        raise BadInput(f"{path} must be readable; received: {problem.strerror}; check the path") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadInput(f"{path} must be a TOML file; received: {problem}; mend that line") from problem
