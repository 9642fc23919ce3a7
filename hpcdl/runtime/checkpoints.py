"""Checkpoints on disk: written whole or not at all, and verified before they are used.

A checkpoint is a folder ``step-00000930`` of ``arrays.npz``, ``meta.json`` and ``COMMIT``. The first two are written
under a temporary name, synced and renamed; ``COMMIT``, which holds their SHA-256, comes last, so that whatever a kill
leaves half-written has none. Nothing in it is a pickle.

Synopsis::

    store = Store(run_dir / "checkpoints", keep_last=3)
    saved = store.save(step=930, meta={"epoch": 2, "step": 460, "best_by": "min:loss"}, arrays={"weights": w})
    store.prune(saved, best_by="min:loss")
    found = store.newest(is_usable=lambda meta: None, say=print)
    if found is not None:
        print(found.meta, found.arrays()["weights"].shape)
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np

from hpcdl.common.digests import file_sha256
from hpcdl.common.errors import BadInput

_ARRAYS, _META, _COMMIT = "arrays.npz", "meta.json", "COMMIT"
_UNFINISHED = "it was not written to the end"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        folder: Where it is.
        meta: What was saved beside the arrays.
    """

    folder: Path
    meta: Dict[str, Any]

    def arrays(self) -> Dict[str, np.ndarray]:
        """Reads all arrays, by name."""
        with np.load(str(self.folder / _ARRAYS), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


class Store:
    """The checkpoints of one run; one process may write.

    Args:
        folder: Made at the first `save`.
        keep_last: Checkpoints that are kept besides the best one.
    """

    def __init__(self, folder: Path, keep_last: int = 3) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def save(self, step: int, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
        """Writes a checkpoint.

        Args:
            step: Steps done since the start of the run; it names the checkpoint.
            meta: JSON; of it `prune` reads ``best_by`` and ``score``.
            arrays: By name.

        Returns:
            Its folder.

        Raises:
            OSError: It cannot be written; the earlier checkpoints are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".{final.name}.tmp"
        temporary.mkdir()
        with open(str(temporary / _ARRAYS), "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # they are no allow_pickle
            _sync(file)
        _write_synced(temporary / _META, json.dumps(meta, indent=1) + "\n")
        digests = {name: file_sha256(temporary / name) for name in (_ARRAYS, _META)}
        if final.exists():  # the same step, saved once more after a resume
            _remove(final)
        os.replace(str(temporary), str(final))
        _sync_folder(self.folder)
        _write_synced(final / f".{_COMMIT}.tmp", json.dumps(digests, indent=1) + "\n")
        os.replace(str(final / f".{_COMMIT}.tmp"), str(final / _COMMIT))
        _sync_folder(final)
        return final

    def prune(self, newest: Path, best_by: Optional[str]) -> None:
        """Removes the checkpoints that need not be kept.

        Args:
            newest: What `save` gave last; it is kept.
            best_by: Of the checkpoints with this ``meta["best_by"]`` the one with the least finite ``meta["score"]`` is
                kept besides the last ones.

        Raises:
            OSError: One cannot be removed; none of those that are kept is touched.
        """
        folders = self._folders()
        keep = {newest, *folders[-self._keep_last :]}
        scores = {folder: _score(folder, best_by) for folder in folders}
        scored = {folder: score for folder, score in scores.items() if score is not None}
        if scored:
            keep.add(min(scored, key=lambda folder: (scored[folder], folder)))
        for folder in folders:
            if folder not in keep:
                _remove(folder)

    def has_any(self) -> bool:
        """Whether one was begun."""
        return bool(self._folders())

    def newest(
        self, is_usable: Callable[[Mapping[str, Any]], Optional[str]], say: Callable[[str], None]
    ) -> Optional[Checkpoint]:
        """Finds the newest checkpoint that is whole; None if none was ever written to the end.

        Args:
            is_usable: Says of a whole checkpoint's meta why it cannot be used here; None if it can.
            say: Is told of each one that is passed over, and why.

        Raises:
            BadInput: None of those that were written can be used: what they hold would be lost.
        """
        is_lost = False
        for folder in reversed(self._folders()):
            damage = _damage(folder)
            meta = {} if damage else json.loads((folder / _META).read_text(encoding="utf-8"))
            damage = damage or is_usable(meta)
            if damage is None:
                return Checkpoint(folder, meta)
            say(f"checkpoint {folder} is not used: {damage}")
            is_lost = is_lost or damage != _UNFINISHED
        if is_lost:
            raise BadInput(
                f"a run goes on from one of its checkpoints; received {self.folder}, none of which can be used (see"
                " above); take away what is in their way, or pass --fresh to move the run folder aside and start anew"
            )
        return None

    def _folders(self) -> List[Path]:
        """Lists the folders that look like checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(str(path))


def _damage(folder: Path) -> Optional[str]:
    """Says what is wrong with a checkpoint; None if it is whole."""
    try:
        digests = json.loads((folder / _COMMIT).read_text(encoding="utf-8"))
        wrong = [name for name in (_ARRAYS, _META) if file_sha256(folder / name) != digests[name]]
        if wrong:
            return f"{' and '.join(wrong)} changed since it was written"
        with zipfile.ZipFile(str(folder / _ARRAYS)):
            return None
    except FileNotFoundError as problem:
        missing = Path(problem.filename).name
        return _UNFINISHED if missing == _COMMIT else f"{missing} is missing"
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as problem:
        return f"it cannot be read ({type(problem).__name__}: {problem})"


def _score(folder: Path, best_by: Optional[str]) -> Optional[float]:
    """Gives the score of a committed checkpoint, if it is by this; whether it is whole is asked when it is used."""
    try:
        if not (folder / _COMMIT).exists():
            return None
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        score = float(meta.get("score"))
        # Nothing is less than NaN, so it would be kept for ever.
        return score if math.isfinite(score) and meta.get("best_by") == best_by else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _remove(folder: Path) -> None:
    # The commit mark goes first: a removal that is cut short leaves no checkpoint that looks whole.
    (folder / _COMMIT).unlink(missing_ok=True)
    shutil.rmtree(str(folder))


def _write_synced(path: Path, text: str) -> None:
    with open(str(path), "w", encoding="utf-8") as file:
        file.write(text)
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
