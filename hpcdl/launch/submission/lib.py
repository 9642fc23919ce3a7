"""A copy of the half of hpcdl that ranks need: in a job's folder, or kept for what is started by hand in an image.

What stands beside hpcdl on this machine, such as its own NumPy, is for this Python, and must not come before the
image's.

Synopsis::

    lib = lib_folder(package, os.environ)               # ~/.cache/hpcdl/lib/3f9a01c2...: another hpcdl has another one
    keep_lib(package, lib)
    write_lib(package, job_folder / "lib")
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Mapping

from hpcdl.common.cache import cache_folder

#: `python3 LIB MODULE ARGUMENTS`. Unlike `python3 -m`, it does not put the working folder, where the user goes on
#: editing, before the frozen code.
_LIB_MAIN = '''"""Runs a module of this folder: ``python3 FOLDER MODULE ARGUMENTS``."""

import runpy
import sys

del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
'''


def lib_folder(package: Path, environ: Mapping[str, str]) -> Path:
    """Names the folder of the copy, after what is in it; nothing is written."""
    digest = hashlib.sha256()
    for path in sorted(
        [package / "__init__.py", *package.glob("common/**/*.py"), *package.glob("runtime/**/*.py")]
    ):
        digest.update(path.read_bytes())
    return cache_folder(environ) / "lib" / digest.hexdigest()[:16]


def keep_lib(package: Path, lib: Path) -> None:
    """Makes the copy, unless it is there; those who do so at once do not disturb each other."""
    if lib.exists():
        return
    lib.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(lib.parent)) as folder:
        write_lib(package, Path(folder) / "lib")
        with contextlib.suppress(OSError):  # another one was faster
            os.rename(os.path.join(folder, "lib"), str(lib))


def write_lib(package: Path, lib: Path) -> None:
    """Copies the half of hpcdl that ranks need; the image need not hold any of it."""
    target = lib / "hpcdl"
    target.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copy2(str(package / "__init__.py"), str(target))
    for name in ("common", "runtime"):
        shutil.copytree(str(package / name), str(target / name), ignore=ignore)
    (lib / "__main__.py").write_text(_LIB_MAIN, encoding="utf-8")
