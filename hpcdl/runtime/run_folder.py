"""The folder of a run: its record, its history, its checkpoints, its final model. Rank 0 alone writes these; the
times of the steps (`hpcdl.common.step_times`), which lie in it too, each rank writes by itself.

``run.json`` says ``running``, ``stopped`` (to be started again), ``done`` or ``failed``. A run that died says
``running`` for ever; nothing but the folder's lock tells it from one that is under way.

Synopsis::

    folder = RunFolder(Path("runs/fashion_mnist-cnn_dropout-3f9a01c2"))
    folder.open(identity, False, architecture(model))     # BadInput if it belongs to another run, or is in use
    folder.write(record)
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import re
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from hpcdl.common.errors import BadInput
from hpcdl.common.records import read_json, write_history, write_json
from hpcdl.runtime.checkpoints import Store
from hpcdl.runtime.identity import differences
from hpcdl.runtime.saving import save_model

_RECORD, _HISTORY, _LOCK = "run.json", "history.csv", ".lock"
_ARCHITECTURE = "architecture.json"
_LOGS = "logs"
#: What a run leaves in its folder; what was being written when it was killed has a temporary name.
_OF_A_RUN = (
    *(_HISTORY, _LOCK, _ARCHITECTURE, "checkpoints", _LOGS, "steps", "trace", "model.keras", "curves.png"),
    *(f".{name}.tmp" for name in (_RECORD, _HISTORY, _ARCHITECTURE)),
    *(".model.tmp.keras", ".curves.tmp.png"),
)


class RunFolder:
    """The folder of a run, as rank 0 sees it.

    Args:
        path: It need not exist.
        keep_checkpoints: As many of the last ones are kept.

    Attributes:
        path: Of the folder.
        checkpoints: In it.
    """

    def __init__(self, path: Path, keep_checkpoints: int = 3) -> None:
        self.path = path
        self.checkpoints = Store(path / "checkpoints", keep_checkpoints)
        self._lock: Optional[Any] = None

    def open(
        self, identity: Mapping[str, Any], is_fresh: bool, architecture: Any
    ) -> Optional[Dict[str, Any]]:
        """Makes the folder this run's own, until `close`.

        Args:
            identity: Of the run.
            is_fresh: Whether to start anew; what is there is moved aside.
            architecture: Of the model, to say what differs from the one before.

        Returns:
            The record of what was trained here before; None if there was nothing.

        Raises:
            BadInput: Another run was trained here, or is being trained, or nothing can be written here.
        """
        try:
            return self._open(identity, is_fresh, architecture)
        except OSError as problem:
            raise BadInput(
                f"a run folder must be one that can be written; received {self.path}: {problem.strerror or problem};"
                " pass another --run-dir, or start from a folder of your own"
            ) from problem

    def _open(
        self, identity: Mapping[str, Any], is_fresh: bool, architecture: Any
    ) -> Optional[Dict[str, Any]]:
        before = None if is_fresh else self._read()
        self._refuse_strange_folder()
        foreign = []
        if before is not None:
            both = (self._read_architecture(), architecture)
            foreign = differences(before.get("identity", {}), identity, None if both[0] is None else both)
        if foreign:
            raise BadInput(
                f"a run folder goes on with the run that it holds; received {self.path}, in which other things"
                f" were trained: {'; '.join(foreign)}; pass another --run-dir, or --fresh to move it aside"
            )
        if self.path.exists():
            self._take_lock()
            if is_fresh:
                self.close()
                os.replace(str(self.path), str(_aside(self.path)))
        self.path.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._take_lock()
        return before

    def close(self) -> None:
        """Lets other processes use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Takes the folder away again: of a new run that was refused in its first step. It holds nothing else."""
        for path in list(self.path.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path), ignore_errors=True)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # other runs are beside it
            self.path.rmdir()
            self.path.parent.rmdir()

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes the record."""
        write_json(self.path / _RECORD, record)

    def link_logs(self, log_dir: Optional[str]) -> None:
        """Leads from the run to what its ranks said in this start, which their launcher keeps.

        Args:
            log_dir: Their folder; None: no launcher keeps any.
        """
        link = self.path / _LOGS
        if log_dir is None or (link.exists() and not link.is_symlink()):  # such as --log-dir RUN/logs
            return
        with contextlib.suppress(
            OSError
        ):  # where a file system has no links, the record still names the folder
            if link.is_symlink():
                link.unlink()
            link.symlink_to(os.path.relpath(log_dir, str(self.path)))

    def write_architecture(self, architecture: Any) -> None:
        """Writes of what layers the model is, for the words of a later start with another one."""
        write_json(self.path / _ARCHITECTURE, architecture)

    def _read_architecture(self) -> Any:
        try:
            return read_json(self.path / _ARCHITECTURE)
        except (OSError, ValueError):  # an earlier hpcdl wrote none
            return None

    def write_history(self, history: Mapping[str, Sequence[Any]]) -> None:
        """Writes the values of all epochs."""
        write_history(self.path / _HISTORY, columns(history))

    def save_model(self, model: Any) -> Optional[str]:
        """Saves the final model as ``model.keras``, which plain Keras loads.

        Returns:
            Why Keras could not; None if it did.
        """
        return save_model(model, self.path / "model.keras")

    def _read(self) -> Optional[Dict[str, Any]]:
        try:
            return read_json(self.path / _RECORD)
        except FileNotFoundError:
            return None
        except ValueError as problem:
            raise BadInput(
                f"{self.path / _RECORD} must be the record of a run; received one that cannot be read ({problem});"
                " pass another --run-dir, or --fresh to move the folder aside"
            ) from problem

    def _refuse_strange_folder(self) -> None:
        """A folder without a record holds nothing but what a run may have left before its record was lost."""
        if not self.path.exists() or (self.path / _RECORD).exists():
            return
        strange = self.path.name if not self.path.is_dir() else None
        if strange is None:
            strange = next((p.name for p in sorted(self.path.iterdir()) if not _is_of_a_run(p.name)), None)
        if strange is not None:
            raise BadInput(
                f"the run folder must be new, or hold a run; received {self.path}, which has no {_RECORD} but"
                f" {strange}; pass another --run-dir"
            )

    def _take_lock(self) -> None:
        lock = open(str(self.path / _LOCK), "a")  # noqa: SIM115 - held open for as long as the run lasts
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
                lock.close()
                raise BadInput(
                    f"a run folder is used by one run at a time; received {self.path}, in which another process is"
                    " training; wait for it, or pass another --run-dir"
                ) from problem
            # Some file systems of clusters know no locks; there the user has to take care.
        self._lock = lock


def _is_of_a_run(name: str) -> bool:
    return name in _OF_A_RUN or re.fullmatch(r"fit-\d+", name) is not None  # a later fit of the script


def columns(history: Mapping[str, Sequence[Any]]) -> Dict[str, List[Optional[float]]]:
    """Gives the numbers of all epochs: of a metric with several, one for each class, say, ``f1_score[0]`` and so on."""
    found: Dict[str, List[Optional[float]]] = {}
    for name, values in history.items():
        rows = [[] if value is None else np.ravel(value).tolist() for value in values]
        of_columns = list(map(list, zip_longest(*rows)))
        names = [name] if len(of_columns) == 1 else [f"{name}[{i}]" for i in range(len(of_columns))]
        found.update(zip(names, of_columns))
    return found


def _aside(path: Path) -> Path:
    """Names where a folder is moved to: beside it, with the time."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    names = [f"{path.name}.before-{now}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 100)))]
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())
