"""A checkpoint is whole or it is not used; the last ones and the best one are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hpcdl.common.digests import file_sha256
from hpcdl.runtime import checkpoints
from hpcdl.runtime.checkpoints import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "checkpoints", keep_last=2)


def save(store, step, **meta):
    saved = store.save(step, {"step": step, **meta}, {"w": np.full((3, 2), step, np.float32)})
    store.prune(saved, meta.get("best_by"))
    return saved


def newest(store, is_usable=lambda meta: None):
    said = []
    return store.newest(is_usable, said.append), said


def steps(store):
    return sorted(int(p.name[5:]) for p in store.folder.glob("step-*"))


def test_what_was_saved_comes_back(store):
    arrays = {
        "a/0": np.arange(6.0).reshape(2, 3),
        "seed/1": np.array([1, 2], np.uint32),
        "empty": np.zeros((0, 4)),
    }
    store.save(7, {"epoch": 1, "history": {"loss": [0.5]}}, arrays)
    found, said = newest(store)
    assert found.meta == {"epoch": 1, "history": {"loss": [0.5]}}
    read = found.arrays()
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert said == []


def test_no_checkpoint_is_no_error(store):
    assert newest(store) == (None, [])


def cut_short(folder):
    os.truncate(str(folder / "arrays.npz"), (folder / "arrays.npz").stat().st_size // 2)


def flip_a_bit(folder):
    content = bytearray((folder / "arrays.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "arrays.npz").write_bytes(content)


def change_meta(folder):
    (folder / "meta.json").write_text('{"step": 99}')


def leave_no_mark(folder):
    (folder / "COMMIT").unlink()


def spoil_mark(folder):
    (folder / "COMMIT").write_text("[1")


def empty_mark(folder):
    (folder / "COMMIT").write_text("{}")


def lose_arrays(folder):
    (folder / "arrays.npz").unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut_short, "arrays.npz changed"),
        (flip_a_bit, "arrays.npz changed"),
        (change_meta, "meta.json changed"),
        (leave_no_mark, "not written to the end"),
        (spoil_mark, "cannot be read"),
        (empty_mark, "cannot be read"),
        (lose_arrays, "arrays.npz is missing"),
    ],
)
def test_of_a_damaged_one_the_one_before_it_is_used_and_said(store, damage, why):
    save(store, 1)
    damage(save(store, 2))
    found, said = newest(store)
    assert found.meta["step"] == 1
    assert len(said) == 1
    assert why in said[0]
    assert "step-00000002" in said[0]


def test_a_foreign_one_is_passed_over(store):
    save(store, 1, of="mine")
    save(store, 2, of="other")
    found, said = newest(store, lambda meta: None if meta["of"] == "mine" else "it is of another run")
    assert found.meta["step"] == 1
    assert "it is of another run" in said[0]


def test_the_last_ones_and_the_best_one_are_kept(store):
    for step, score in enumerate([0.9, 0.2, 0.5, 0.7, 0.6], start=1):
        save(store, step, score=score)
    save(store, 6)
    assert steps(store) == [2, 5, 6]


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf, None])
def test_what_has_no_finite_score_is_not_the_best(store, score):
    for step, one in enumerate([score, 0.5, 0.7, 0.6], start=1):
        save(store, step, score=one)
    assert steps(store) == [2, 3, 4]


def test_scores_by_another_value_are_not_compared(store):
    for step, by in enumerate(["max:accuracy", "min:loss", "min:loss", "min:loss", "min:loss"], start=1):
        save(store, step, best_by=by, score=-0.9 if by == "max:accuracy" else 0.1 * step)
    assert steps(store) == [2, 4, 5]


def test_a_kill_at_any_point_of_a_save_leaves_the_one_before(store, monkeypatch):
    save(store, 1)
    calls = ("_sync", "_write_synced", "file_sha256", "_sync_folder")
    for name in calls:
        for nth in (1, 2, 3):
            count = [0]
            plain = getattr(checkpoints, name)

            def killed(*args, plain=plain, count=count, nth=nth):
                count[0] += 1
                if count[0] == nth:
                    raise KeyboardInterrupt
                return plain(*args)

            with monkeypatch.context() as patch:
                patch.setattr(checkpoints, name, killed)
                try:
                    save(store, 2)
                except KeyboardInterrupt:
                    pass
                else:
                    continue  # it is not called so often
            found, _ = newest(store)
            assert found is not None
            np.testing.assert_array_equal(found.arrays()["w"], np.full((3, 2), found.meta["step"]))
    save(store, 3)
    found, _ = newest(store)
    assert found.meta["step"] == 3
    assert not list(store.folder.glob(".step-*"))


def test_the_same_step_can_be_saved_again(store):
    save(store, 1, epoch=0)
    save(store, 1, epoch=1)
    found, said = newest(store)
    assert found.meta["epoch"] == 1
    assert said == []


def test_a_removal_that_was_cut_short_leaves_nothing_that_looks_whole(store, monkeypatch):
    save(store, 1)
    save(store, 2)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(store, 3)
    monkeypatch.undo()
    found, said = newest(store)
    assert found.meta["step"] == 3
    leave_no_mark(store.folder / "step-00000003")
    leave_no_mark(store.folder / "step-00000002")
    found, said = newest(store)
    assert found is None
    assert len(said) == 3


def test_a_full_disk_leaves_the_earlier_ones(store, monkeypatch):
    save(store, 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save(store, 2)
    assert newest(store)[0].meta["step"] == 1


def test_nothing_is_read_as_a_pickle(store):
    folder = save(store, 1)
    with open(str(folder / "arrays.npz"), "wb") as file:
        np.savez(file, w=np.array([{"a": 1}], dtype=object))
    digests = {name: file_sha256(folder / name) for name in ("arrays.npz", "meta.json")}
    (folder / "COMMIT").write_text(json.dumps(digests))
    found, _ = newest(store)
    with pytest.raises(ValueError, match="allow_pickle"):
        found.arrays()


def test_other_files_in_the_folder_are_left_alone(store):
    store.folder.mkdir(parents=True)
    note = Path(store.folder / "README.txt")
    note.write_text("mine")
    for step in (1, 2, 3, 4):
        save(store, step)
    assert note.read_text() == "mine"
    assert steps(store) == [3, 4]
