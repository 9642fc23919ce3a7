"""A Horovod that does not connect the ranks is refused: each of them would run alone, or Horovod abort."""

from __future__ import annotations

import json
import sys

import pytest
import tensorflow as tf

from hpcdl.common.errors import BadInput
from hpcdl.common.topology import Topology
from hpcdl.runtime.processes import start_horovod

RANK_OF_TWO = Topology(0, 2, 0, 2, 0, 1, "node1", "hpcdl")


@pytest.fixture
def horovod(tmp_path, monkeypatch):
    """Puts a package of the test's own in the place of Horovod."""
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "horovod"}

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "horovod"]:
            del sys.modules[name]

    def make(code: str) -> None:
        package = tmp_path / "horovod"
        (package / "tensorflow").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "tensorflow" / "__init__.py").write_text(code)

    forget()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    forget()
    sys.modules.update(real)


WORLD = "def init(): pass\ndef rank(): return {}\ndef size(): return {}\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'horovod'\")",
            "received: No module named 'horovod'; run",
        ),
        (
            "raise ImportError('Extension horovod.tensorflow has not been built:\\nif this is not expected')",
            "received: Extension horovod.tensorflow has not been built: if this is not expected; run",
        ),
        (
            "raise ImportError('tensorflow installed with version 2.15 but found version 2.21.\\n  Reinstall')",
            "received: tensorflow installed with version 2.15 but found version 2.21. Reinstall; run",
        ),
        (WORLD.format(0, 1), "hpcdl started rank 0 of 2, Horovod sees rank 0 of 1; use the launcher of"),
        (WORLD.format(1, 2), "hpcdl started rank 0 of 2, Horovod sees rank 1 of 2; use the launcher of"),
    ],
    ids=["missing", "not built", "another TensorFlow", "a world of its own", "another rank"],
)
def test_a_horovod_that_does_not_connect_this_world_is_refused_in_one_line(code, said, horovod) -> None:
    horovod(code)
    with pytest.raises(BadInput) as refusal:
        start_horovod(RANK_OF_TWO, "mpi", {})
    text = str(refusal.value)
    assert said in text
    assert "\n" not in text
    assert "`hpcdl horovod " in text


def test_a_horovod_that_loads_but_was_built_for_another_tensorflow_is_refused(horovod, tmp_path) -> None:
    horovod(WORLD.format(0, 2))
    metadata = tmp_path / "horovod" / "metadata.json"
    metadata.write_text(json.dumps({"tensorflow": f"{tf.__version__}+nv23.04"}))
    start_horovod(RANK_OF_TWO, "mpi", {})
    metadata.write_text(json.dumps({"tensorflow": "2.1.0"}))
    with pytest.raises(BadInput, match=rf"this TensorFlow, {tf.__version__}; received one for 2\.1\.0; run"):
        start_horovod(RANK_OF_TWO, "mpi", {})


def test_a_horovod_that_sees_the_world_of_the_launcher_connects_it(horovod) -> None:
    horovod(WORLD.format(0, 2))
    processes = start_horovod(RANK_OF_TWO, "mpi", {})
    assert (processes.rank, processes.size) == (0, 2)
