"""Folders that are yet to be made.

Synopsis::

    nearest_existing(Path("/scratch/me/new/folder"))         # /scratch/me
"""

from __future__ import annotations

import os
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """Gives the path, or the nearest folder above it that is there: what is made below it will be like it.

    What is in a folder where one may not look is not there.
    """
    return next(one for one in (path, *path.parents) if os.path.exists(one))
