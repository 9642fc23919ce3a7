"""Which Keras it will be, and what it computes with, found out before it is loaded: a backend may not even be there.

`import tensorflow` loads Keras, so this has to come before it: `hpcdl.init` is not handed out without.

Synopsis::

    check_release(os.environ, version_of_keras())
    check_backend(os.environ, version_of_keras())
"""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any, Mapping, Optional

from hpcdl.common.cache import home_folder
from hpcdl.common.errors import BadInput
from hpcdl.common.releases import NEWER_KERAS, of_early_keras_3

_RULE = "Keras must compute with TensorFlow, whose steps hpcdl joins"


def version_of_keras() -> Optional[str]:
    """Gives the version of Keras that is installed, which is not loaded for that; None: it is not known."""
    try:
        return metadata.version("keras")
    except metadata.PackageNotFoundError:
        return None


def check_release(environ: Mapping[str, str], keras: Optional[str]) -> None:
    """Refuses a Keras 3 that came before those whose steps are exact, unless tf_keras takes its place.

    Args:
        environ: Of this process.
        keras: The version of Keras; None: it is not known.

    Raises:
        BadInput: It did.
    """
    early = of_early_keras_3(keras) if keras is not None else None
    if early is not None and not _is_legacy(environ):
        raise BadInput(f"{early}; {NEWER_KERAS}")


def check_backend(environ: Mapping[str, str], keras: Optional[str]) -> None:
    """Refuses Keras on anything but TensorFlow.

    The variable goes before the file, as for Keras; and it is refused with Keras 2 too, which has no backends: its user
    means something by it. The file may be there for another Keras, and counts only for the one that reads it.

    Args:
        environ: Of this process.
        keras: The version of Keras; None: it is not known.

    Raises:
        BadInput: It would take another backend.
    """
    said = environ.get("KERAS_BACKEND")
    if said:
        if said != "tensorflow":
            raise BadInput(
                f"{_RULE}; received KERAS_BACKEND={said}; unset it, or set KERAS_BACKEND=tensorflow"
            )
    elif keras is not None and keras.startswith("3.") and not _is_legacy(environ):
        file = _keras_home(environ) / "keras.json"
        written = _read(file)
        if written != "tensorflow":
            raise BadInput(
                f'{_RULE}; received "backend": "{written}" in {file};'
                " set KERAS_BACKEND=tensorflow, or write it there"
            )


def _is_legacy(environ: Mapping[str, str]) -> bool:
    """Says whether TensorFlow takes tf_keras; it knows these words."""
    return environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1")


def _keras_home(environ: Mapping[str, str]) -> Path:
    if "KERAS_HOME" in environ:
        return Path(environ["KERAS_HOME"]).expanduser()
    home = home_folder(environ)
    return (home if os.access(str(home), os.W_OK) else Path("/tmp")) / ".keras"


def _read(file: Path) -> Any:
    """Reads the backend that a file names; of one that is damaged Keras speaks by itself, or takes it for empty."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        content = {}
    return content.get("backend", "tensorflow") if isinstance(content, dict) else "tensorflow"
