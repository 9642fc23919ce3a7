"""The worlds of the tests: which Python is taken, when an environment is made again, what is skipped."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Set

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.launch.logged import Screen
from hpcdl.launch.processes import identify
from tools import environments
from tools.environments import World, environ_of, find_worlds
from tools.interpreters import Interpreter, InterpreterMissing, find_interpreter

RELEASE = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHON = Interpreter("/usr/bin/python3.11", "3.11.2", has_ensurepip=True)


def fake_python(path: Path, version: str) -> Path:
    """A stand-in that says it is a Python of a version; "" makes one that does not start, as pyenv's can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = f'"path": "{path}", "version": "{version}", "has_ensurepip": true, "usable": true'
    path.write_text(f"#!/bin/sh\necho '{{{fields}}}'\n" if version else "#!/bin/sh\nexit 127\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_python_at_hand_is_taken_if_its_version_is_wanted() -> None:
    found = find_interpreter(["3.0", RELEASE], {"PATH": "", "HOME": "/nowhere"})
    assert found.version.startswith(RELEASE + ".")
    assert found.path == os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def test_where_none_is_at_hand_the_first_wanted_version_is_taken_from_path(tmp_path: Path) -> None:
    other = fake_python(tmp_path / "python3.99", "3.99.0")
    environ = {"PATH": str(tmp_path)}
    assert find_interpreter(["3.99", RELEASE], environ, at_hand=None).path == str(other)
    assert find_interpreter(["3.99", RELEASE], environ).version.startswith(RELEASE + ".")


def test_otherwise_the_first_wanted_version_on_path_is_taken(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.7", "3.7.1")
    fake_python(tmp_path / "python3.6", "3.6.9")
    assert find_interpreter(["3.6", "3.7"], {"PATH": str(tmp_path)}).version == "3.6.9"


def test_a_stand_in_that_does_not_start_is_passed_over(tmp_path: Path) -> None:
    fake_python(tmp_path / "shims" / "python3.7", "")
    good = fake_python(tmp_path / "bin" / "python3.7", "3.7.1")
    environ = {"PATH": f"{tmp_path}/shims:{tmp_path}/bin"}
    assert find_interpreter(["3.7"], environ).path == str(good)


def test_pyenv_is_searched_after_path(tmp_path: Path) -> None:
    good = fake_python(tmp_path / "versions" / "3.7.1" / "bin" / "python3.7", "3.7.1")
    assert find_interpreter(["3.7"], {"PATH": "", "PYENV_ROOT": str(tmp_path)}).path == str(good)


def test_a_python_of_another_version_than_its_name_says_is_passed_over(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.7", "3.9.1")
    with pytest.raises(InterpreterMissing):
        find_interpreter(["3.7"], {"PATH": str(tmp_path), "HOME": "/nowhere"})


def test_a_missing_python_is_named_with_a_cure() -> None:
    with pytest.raises(
        InterpreterMissing, match="no python3.7 or python3.6 on PATH or in pyenv; install one"
    ):
        find_interpreter(["3.7", "3.6"], {"PATH": "", "HOME": "/nowhere"})


def test_a_python_that_can_make_no_environment_is_passed_over_and_named_if_there_is_no_other(
    tmp_path: Path,
) -> None:
    path = fake_python(tmp_path / "python3.7", "3.7.1")
    path.write_text(path.read_text().replace('"usable": true', '"usable": false'))
    environ = {"PATH": str(tmp_path), "HOME": "/nowhere"}
    with pytest.raises(InterpreterMissing) as caught:
        find_interpreter(["3.8", "3.7"], environ, at_hand=None)
    assert str(caught.value) == (
        f"a Python must be able to make environments; received {path}, which has no venv, or neither ensurepip nor"
        " pip; install them (on Debian: apt install python3.7-venv), or another Python (for example: pyenv install 3.8)"
    )
    other = fake_python(tmp_path / "bin" / "python3.7", "3.7.2")
    environ["PATH"] += f":{other.parent}"
    assert find_interpreter(["3.8", "3.7"], environ, at_hand=str(path)).path == str(other)


def test_a_group_stands_for_its_worlds() -> None:
    assert [world.name for world in find_worlds(["tested", "tf2.17"])] == [
        "tf2.21",
        "tf2.12",
        "tf2.15",
        "tf2.17",
    ]


def test_an_unknown_world_lists_those_that_are() -> None:
    with pytest.raises(
        BadInput, match=r"unknown world 'tf1'; worlds are tf2\.21, .* groups are tested, matrix"
    ):
        find_worlds(["tf1"])


def test_every_world_has_its_requirement_file() -> None:
    for world in find_worlds(["tested", "matrix"]):
        for name in filter(None, (world.requirements, world.alone)):
            assert (environments.ROOT / "requirements" / name).is_file()


@pytest.mark.parametrize(
    ("changed", "made_again"),
    [
        ("requirements/world.txt", {"packages", "project", "horovod"}),
        ("requirements/test.txt", {"packages", "project", "horovod"}),
        ("requirements/alone.txt", {"packages", "project", "horovod"}),
        ("pyproject.toml", {"project"}),
        ("requirements/other.txt", set()),
    ],
)
def test_a_change_makes_again_what_depends_on_it(
    changed: str, made_again: Set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "world.txt").write_text("-r test.txt\ntensorflow\n")
    (tmp_path / "requirements" / "test.txt").write_text("pytest\n")
    (tmp_path / "requirements" / "alone.txt").write_text("tf-keras\n")
    (tmp_path / "requirements" / "other.txt").write_text("x\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    world = World("w", ("3.11",), "world.txt", "alone.txt")
    before = environments.digests(world, PYTHON)
    with (tmp_path / changed).open("a") as file:
        file.write("# changed\n")
    after = environments.digests(world, PYTHON)
    assert {part for part in before if before[part] != after[part]} == made_again


def test_another_python_makes_all_again() -> None:
    (world,) = find_worlds(["tf2.21"])
    other = Interpreter(PYTHON.path, "3.11.3", has_ensurepip=True)
    before, after = environments.digests(world, PYTHON), environments.digests(world, other)
    assert all(before[part] != after[part] for part in before)


def test_each_python_has_an_environment_of_its_own_which_a_world_of_that_python_shares() -> None:
    of_its_own, of_3_12 = find_worlds(["tf2.21", "tf2.21-py3.12"])
    other = Interpreter("/usr/bin/python3.12", "3.12.1", has_ensurepip=True)
    assert environments.folder_of(of_its_own, PYTHON) != environments.folder_of(of_its_own, other)
    assert environments.folder_of(of_its_own, other) == environments.folder_of(of_3_12, other)
    assert environments.digests(of_its_own, other) == environments.digests(of_3_12, other)


@pytest.mark.parametrize("words", [["run", "tf2.21"], ["run", "tested", "--", "true"]])
def test_run_without_one_world_and_a_command_makes_nothing(words: List[str]) -> None:
    with pytest.raises(BadInput, match=f"run takes one world and a command; received {words[1]}"):
        environments.main(words)


@pytest.mark.parametrize(("user_id", "is_allowed"), [(0, True), (1000, False)])
def test_commands_see_the_environment_and_not_the_one_active_outside(user_id: int, is_allowed: bool) -> None:
    outside: Dict[str, str] = {
        "PATH": "/outer/bin:/bin",
        "VIRTUAL_ENV": "/outer",
        "PYTHONPATH": "/x",
        "HOME": "/me",
    }
    inside = environ_of(Path("/w"), outside, user_id)
    assert inside["PATH"] == f"/w/bin{os.pathsep}/outer/bin:/bin"
    assert inside["VIRTUAL_ENV"] == "/w"
    assert "PYTHONPATH" not in inside
    assert inside["HOME"] == "/me"
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in inside) is is_allowed


#: Of a world of which only Horovod is missing, whose Python tells its process id and stays.
MAKING = """
import pathlib, signal, sys
from tools import environments, try_worlds
from tools.interpreters import Interpreter
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which is coverage's where that is measured
waiting = "echo $$ > here.tmp; mv here.tmp here; exec sleep 60"
if sys.argv[1] == "make":
    environments._ENVIRONMENTS = pathlib.Path.cwd() / "envs"
    environments.find_interpreter = lambda *given: Interpreter("/usr/bin/python3.11", "3.11.2", True)
    environments.digests = lambda *given: {"packages": "a", "project": "b", "horovod": "c"}
    folder = environments.folder_of(environments.find_worlds(["tf2.21"])[0], environments.find_interpreter())
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f"#!/bin/sh\\n{waiting}\\n".replace("here", f"{pathlib.Path.cwd()}/here"))
    (folder / "bin" / "python").chmod(0o755)
    environments._write_stamp(folder, {"packages": "a", "project": "b"})
    sys.exit(environments.guarded(environments.main, ["make", "tf2.21"]))
try_worlds.ROOT = pathlib.Path.cwd()
try_worlds._run_and_show(["sh", "-c", waiting], {"PATH": "/bin:/usr/bin"})
"""


@pytest.mark.parametrize("what", ["make", "try"])
def test_who_is_told_to_end_ends_what_it_has_started_first(what: str, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(environments.ROOT)}
    with subprocess.Popen([sys.executable, "-c", MAKING, what], cwd=tmp_path, env=environ) as making:
        until = time.monotonic() + 20
        while not (tmp_path / "here").exists():
            assert making.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        child = identify(int((tmp_path / "here").read_text()))
        assert child is not None
        making.send_signal(signal.SIGTERM)
        assert making.wait(10) == 128 + signal.SIGTERM
    try:
        assert not child.is_alive()
    finally:
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)


@pytest.fixture
def impossible(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    return World("tf0.1", ("2.0",), "tf2.21.txt")


def test_a_world_without_its_python_is_skipped_aloud(
    impossible: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HPCDL_REQUIRE_ALL_WORLDS", raising=False)
    stream = io.StringIO()
    assert not environments.make_or_skip(impossible, Screen(stream))
    assert stream.getvalue().startswith("SKIPPED tf0.1: no python2.0 on PATH")


def test_a_skipped_world_is_an_error_where_all_are_required(
    impossible: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCDL_REQUIRE_ALL_WORLDS", "1")
    with pytest.raises(InterpreterMissing):
        environments.make_or_skip(impossible, Screen(io.StringIO()))
