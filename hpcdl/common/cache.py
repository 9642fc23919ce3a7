"""Where hpcdl keeps what is costly to get again: wheels of Horovod, data sets.

Synopsis::

    wheels = cache_folder(os.environ) / "wheels"            # $HPCDL_CACHE/wheels, else ~/.cache/hpcdl/wheels
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping


def home_folder(environ: Mapping[str, str]) -> Path:
    """Gives the user's home folder: $HOME, else what the system says."""
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Gives hpcdl's cache: $HPCDL_CACHE, else .cache/hpcdl in the home folder."""
    return Path(environ.get("HPCDL_CACHE") or home_folder(environ) / ".cache" / "hpcdl").absolute()
