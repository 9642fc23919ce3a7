"""Tests on a private Slurm of two nodes: `make test-cluster`. Elsewhere they are skipped, and that is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from hpcdl.common.cache import cache_folder

ROOT = Path(__file__).resolve().parents[2]

#: Stands in for training: says who it is, waits if told to, stops and saves when it is asked to, fails when told to.
SCRIPT = """
import json, os, signal, socket, sys, time
from hpcdl.runtime.use import note_use
note_use(os.environ)  # as a script that trains does
rank = int(os.environ["SLURM_PROCID"])
asked = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda number, frame: asked.append(number))
threads = os.environ["OMP_NUM_THREADS"]
print(json.dumps({"rank": rank, "host": socket.gethostname(), "words": sys.argv[1:], "cwd": os.getcwd(),
                  "threads": threads, "end": os.environ.get("HPCDL_END_TIME"),
                  "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}), flush=True)
what = sys.argv[1] if len(sys.argv) > 1 else ""
is_first = not os.path.exists("saved")
if what == "fail" and rank == 3:
    raise ValueError("boom")
if what == "kill" and rank == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if what in ("fail", "kill") or (what == "wait" and is_first):
    for _ in range(600):
        if asked:
            break
        time.sleep(0.05)
if asked:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a run that is over listens no more
    if rank == 0:
        time.sleep(1)
        print("saved", flush=True)
        open("saved", "w").close()
    sys.exit(85)
print("ended", flush=True)
"""


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    if "HPCDL_TEST_CLUSTER" not in os.environ:
        skip = pytest.mark.skip(reason="needs a private Slurm: make test-cluster")
        for item in items:
            if Path(str(item.fspath)).parent == Path(__file__).parent:
                item.add_marker(skip)


class User:
    """Someone on the login node, in a folder that the nodes see too."""

    def __init__(self, folder: Path, is_root: bool = True) -> None:
        self.folder = folder
        folder.chmod(0o755)
        (folder / "train.py").write_text(SCRIPT)
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(folder / "config")}
        self._becomes: List[str] = []
        if not is_root:
            folder.chmod(0o777)
            self._becomes = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            self.environ.update(USER="nobody", LOGNAME="nobody", HOME=str(folder))
            self.environ["HPCDL_CACHE"] = str(cache_folder(os.environ))

    def types(
        self, *argv: str, before: Optional[List[str]] = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        command = [*self._becomes, *(before or []), sys.executable, "-m", "hpcdl", *argv]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environ, "PWD": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def reads(self, *argv: str) -> List[str]:
        done = self.types(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def submits(self, *argv: str) -> str:
        """Submits to 2 nodes with 2 processes each; without GPUs, unless they are asked for."""
        gpus = [] if "--gpus-per-node" in argv else ["--gpus-per-node", "0"]
        (job_id,) = self.reads("submit", "--site", "box", "-N", "2", "--np", "4", *gpus, *argv)
        return job_id

    def plants(self, container_command: Optional[str] = None, **values: Any) -> None:
        """Changes values of the profile as it was made; another call begins from there again."""
        own = self.folder / "config" / "hpcdl" / "sites" / "box.toml"
        made = own.with_suffix(".made")
        if not made.exists():
            made.write_text(own.read_text())
        head, mark, rest = made.read_text().partition("[sources")
        kept = [line for line in head.splitlines() if line.partition(" =")[0] not in values]
        kept += [f'{name} = [{json.dumps(value)}, "cluster"]' for name, value in values.items()]
        if container_command is not None:
            rest = rest.replace("[container]", f'[container]\ncommand = ["{container_command}", "cluster"]')
        own.write_text("\n".join([*kept, "", mark + rest]))

    def finds(self, name: str, text: str) -> None:
        """Puts a program first on the PATH of this user, here and on the nodes."""
        program = self.folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
        if str(program.parent) not in self.environ["PATH"]:
            self.environ["PATH"] = f"{program.parent}{os.pathsep}{self.environ['PATH']}"

    def job(self) -> Path:
        return sorted(self.folder.glob("hpcdl-jobs/*"))[-1]

    def state(self) -> Dict[str, Any]:
        path = self.job() / "state.json"
        loaded: Dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return loaded

    def ranks(self) -> List[Dict[str, Any]]:
        """What each rank said first in its log."""
        logs = sorted((self.job() / "logs").glob("rank-*.log"))
        return [json.loads(log.read_text().splitlines()[0]) for log in logs]

    def all_have_begun(self) -> bool:
        """Whether four ranks have said who they are, and so listen to signals."""
        logs = list((self.job() / "logs").glob("rank-*.log"))
        return len(logs) == 4 and all("\n" in log.read_text() for log in logs)


@pytest.fixture
def user(request: pytest.FixtureRequest, empty_queue: None) -> User:
    return _new_user(request, is_root=True)


@pytest.fixture
def ordinary_user(request: pytest.FixtureRequest, empty_queue: None) -> User:
    return _new_user(request, is_root=False)


@pytest.fixture
def empty_queue(wait_for: Callable[..., None]) -> Iterator[None]:
    """Ends the jobs that a test leaves, since those of the next one would wait for the cores that they keep."""

    def left() -> List[str]:
        words = ["squeue", "-h", "-o", "%A"]
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()

    yield
    for job_id in left():
        subprocess.run(["scancel", job_id], check=False)  # it may have ended by now
    wait_for(lambda: not left())


def _new_user(request: pytest.FixtureRequest, is_root: bool) -> User:
    shared = Path(os.environ["HPCDL_TEST_CLUSTER"]) / "shared"
    name = request.node.name.replace("[", "-").rstrip("]")[:60]
    someone = User(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared)), is_root)
    someone.reads("site", "init", "box")
    # The site runs images, so a run takes one unless it is told not to; those of the tests that want one say so.
    # Its folder is below /tmp, and the nodes see it.
    config = f'image = "none"\nshared_folder = "{shared}"\n'
    (someone.folder / "config" / "hpcdl" / "config.toml").write_text(config)
    return someone


@pytest.fixture(scope="session")
def image() -> str:
    """An image that holds TensorFlow and Horovod, and neither hpcdl nor submitit."""
    if "HPCDL_TEST_IMAGE" not in os.environ:
        pytest.skip("needs an image: python -m tools.cluster image")
    return os.environ["HPCDL_TEST_IMAGE"]


@pytest.fixture
def slurm_state() -> Callable[[str], str]:
    """Asks Slurm for the state of a job."""

    def ask(job_id: str) -> str:
        words = ["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()

    return ask


@pytest.fixture
def wait_for() -> Callable[..., None]:
    def wait(condition: Callable[[], Any], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not come in {timeout_s:g} s; there is\n{_what_there_is()}")
            time.sleep(0.1)

    return wait


def _what_there_is() -> str:
    """Shows the queue, what Slurm said last, and the ends of the newest logs."""
    box = Path(os.environ["HPCDL_TEST_CLUSTER"])
    queue = subprocess.run(["squeue", "-t", "all"], stdout=subprocess.PIPE, text=True, check=False).stdout
    logs = sorted((box / "shared").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    ends = [
        "\n".join([str(path), *path.read_text(errors="replace").splitlines()[-10:]])
        for path in [box / "log" / "slurmctld.log", *logs[-6:]]
    ]
    return "\n".join([queue, *ends])
