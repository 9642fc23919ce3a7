"""Ranks that have nowhere to meet are refused before Horovod lets each of them run alone, or aborts."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List

import pytest

from hpcdl.common.errors import BadInput, Diverged, HpcdlError
from hpcdl.common.topology import Topology
from hpcdl.runtime.processes import check_meeting, from_rank_0
from hpcdl.runtime.rendezvous import meets_by_gloo
from hpcdl.runtime.saving import save_on_rank_0

FOLDER = {"HPCDL_RENDEZVOUS_DIR": "/shared/meet"}
SERVER = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1"}


def rank_of_two(launcher: str) -> Topology:
    return Topology(0, 2, 0, 2, 0, 1, "node1", launcher)


@pytest.mark.parametrize(
    ("launcher", "controller", "environ"),
    [
        ("hpcdl", None, FOLDER),
        ("hpcdl", "gloo", FOLDER),
        ("hpcdl", "mpi", {}),
        ("srun", None, {}),
        ("srun", "gloo", FOLDER),
        ("horovodrun", None, SERVER),
        ("openmpi", None, {"PMIX_NAMESPACE": "1"}),
        ("openmpi", "mpi", {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}),
        ("openmpi", None, FOLDER),
    ],
)
def test_ranks_that_can_meet_pass(launcher, controller, environ) -> None:
    check_meeting(rank_of_two(launcher), controller, environ)


@pytest.mark.parametrize(
    ("launcher", "controller", "environ", "said"),
    [
        ("hpcdl", None, {}, "HPCDL_RENDEZVOUS_DIR"),
        ("hpcdl", "gloo", {}, "HPCDL_RENDEZVOUS_DIR"),
        ("srun", "gloo", {}, "HPCDL_RENDEZVOUS_DIR"),
        ("openmpi", "gloo", {"PMIX_NAMESPACE": "1"}, "HPCDL_RENDEZVOUS_DIR"),
        ("horovodrun", None, {"HOROVOD_CONTROLLER": "gloo"}, "HPCDL_RENDEZVOUS_DIR"),
        ("openmpi", None, {}, "PMIX_"),
    ],
)
def test_ranks_that_cannot_meet_are_refused(launcher, controller, environ, said) -> None:
    with pytest.raises(BadInput, match=said):
        check_meeting(rank_of_two(launcher), controller, environ)


@pytest.mark.parametrize(
    ("launcher", "controller", "environ", "by_gloo"),
    [
        ("hpcdl", None, FOLDER, True),
        ("horovodrun", None, SERVER, True),
        ("openmpi", None, FOLDER, True),
        ("openmpi", None, {}, False),
        ("srun", None, {"HPCDL_RENDEZVOUS_DIR": ""}, False),
        ("srun", "gloo", {}, True),
        ("hpcdl", "mpi", FOLDER, False),
    ],
)
def test_ranks_meet_by_gloo_as_was_said_or_where_there_is_what_it_needs(
    launcher, controller, environ, by_gloo
) -> None:
    assert meets_by_gloo(rank_of_two(launcher), controller, environ) is by_gloo


ROOT = Path(__file__).resolve().parents[2]

#: A rank of two that MPI is to connect; its Horovod is one whose init() waits for ever on the ranks that are named.
RANK = """
import os, sys, time, types
from hpcdl.common.topology import Topology
rank, stuck = int(sys.argv[1]), sys.argv[2:]
hvd = types.ModuleType("horovod.tensorflow")
hvd.init = lambda: time.sleep(60 if str(rank) in stuck else 0)
hvd.rank, hvd.size = lambda: rank, lambda: 2
hvd.__file__ = os.path.join(os.getcwd(), "of the test", "tensorflow", "__init__.py")
sys.modules["horovod"] = types.ModuleType("horovod")
sys.modules["horovod"].tensorflow = sys.modules["horovod.tensorflow"] = hvd
from hpcdl.common.errors import HpcdlError
from hpcdl.runtime.processes import start_horovod
try:
    processes = start_horovod(Topology(rank, 2, 0, 1, rank, 2, f"n{rank}", "hpcdl"), "mpi", os.environ, timeout_s=2)
except HpcdlError as error:
    sys.exit(str(error))
print(processes.rank, "of", processes.size)
"""


def _starts(tmp_path: Path, ranks: List[int], stuck: List[int]) -> List[subprocess.CompletedProcess]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HPCDL_RENDEZVOUS_DIR": str(tmp_path / "meet")}
    environ["HPCDL_STATUS_DIR"] = str(tmp_path)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *map(str, stuck)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        for rank in ranks
    ]
    said = [process.communicate(timeout=50) for process in running]
    return [
        subprocess.CompletedProcess([], process.returncode, *words) for process, words in zip(running, said)
    ]


def test_ranks_that_mpi_connects_wait_for_each_other_first(tmp_path: Path) -> None:
    done = _starts(tmp_path, [0, 1], [])
    assert [(one.returncode, one.stdout) for one in done] == [(0, "0 of 2\n"), (0, "1 of 2\n")]


def test_a_rank_that_does_not_come_is_named_before_mpi_waits_for_it(tmp_path: Path) -> None:
    (alone,) = _starts(tmp_path, [0], [])
    assert alone.returncode == 1
    assert "1 of 2 ranks did not come within 2 s: rank 1 (node 1," in alone.stderr


def test_an_mpi_that_does_not_connect_the_ranks_ends_with_a_line_and_a_report(tmp_path: Path) -> None:
    free, stuck = _starts(tmp_path, [0, 1], [1])
    assert (free.returncode, stuck.returncode) == (0, 1)
    assert stuck.stderr.startswith(
        "hpcdl: Horovod did not connect the ranks through MPI within 2 s; 1 are through"
    )
    assert "not rank 1; does the MPI here speak the launcher's PMI?" in stuck.stderr
    report = json.loads((tmp_path / "rank-0001.json").read_text())
    assert (report["hostname"], report["exit_status"]) == ("n1", 1)
    assert report["error"] in stuck.stderr


class Played:
    """A rank of two that are threads."""

    size = 2

    def __init__(self, rank: int, sent: queue.Queue) -> None:
        self.rank, self._sent = rank, sent

    def broadcast_bytes(self, content: bytes) -> bytes:
        if self.rank == 0:
            self._sent.put(content)
            return content
        return self._sent.get(timeout=10)


def outcomes(do: Callable[[Any], Any]) -> List[Any]:
    """Gives what a collective returns or raises, on each rank; after it both still understand each other."""
    sent: queue.Queue = queue.Queue()

    def play(rank: int) -> Any:
        processes = Played(rank, sent)
        try:
            found = do(processes)
        except Exception as error:
            found = error
        assert from_rank_0(processes, lambda: "the next one") == "the next one"
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(play, (0, 1)))


def raising(error: Exception) -> Callable[..., Any]:
    def work(*args: Any) -> Any:
        raise error

    return work


def test_what_rank_0_finds_is_known_to_all() -> None:
    assert outcomes(lambda processes: from_rank_0(processes, lambda: {"a": [1]})) == [{"a": [1]}, {"a": [1]}]


@pytest.mark.parametrize(
    ("error", "on_the_others", "said"),
    [
        (BadInput("pass another"), BadInput, "pass another"),
        (Diverged("ranks differ"), HpcdlError, "ranks differ"),
        (
            RuntimeError("Unable to serialize\nit"),
            HpcdlError,
            "rank 0 failed: RuntimeError: Unable to serialize",
        ),
        (RecursionError(), HpcdlError, "rank 0 failed: RecursionError: "),
    ],
)
def test_what_rank_0_meets_ends_the_wait_of_the_others(error, on_the_others, said, monkeypatch) -> None:
    monkeypatch.setattr("hpcdl.runtime.processes._GIVE_WAY_S", 0)
    first, second = outcomes(lambda processes: from_rank_0(processes, raising(error)))
    assert (type(first), str(first)) == (type(error), str(error))
    assert (type(second), str(second)) == (on_the_others, said)


def test_a_find_that_cannot_be_sent_ends_the_wait_of_the_others(monkeypatch) -> None:
    monkeypatch.setattr("hpcdl.runtime.processes._GIVE_WAY_S", 0)
    first, second = outcomes(lambda processes: from_rank_0(processes, lambda: {1, 2}))
    assert isinstance(first, TypeError)
    assert str(second) == "rank 0 failed: TypeError: Object of type set is not JSON serializable"


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to serialize\nit"), KeyError("a"), OSError(28, "No space"), OSError("h5")]
)
def test_a_model_that_cannot_be_saved_is_the_same_error_on_all_ranks(error, tmp_path) -> None:
    class Model:
        save = staticmethod(raising(error))

    path = tmp_path / "new" / "m.keras"
    both = outcomes(lambda processes: save_on_rank_0(processes, Model(), path))
    assert [type(one) for one in both] == [HpcdlError, HpcdlError]
    assert str(both[0]) == str(both[1])
    words = {RuntimeError: "Unable to serialize", KeyError: "'a'"}.get(type(error), error.args[-1])
    assert f"could not be saved as {path}: {type(error).__name__}: {words}; nothing is left" in str(both[0])
    assert list(path.parent.iterdir()) == []
