"""Runs the tests in one world after the other; a table at the end says what passed, failed, was skipped.

Synopsis::

    python tools/try_worlds.py --coverage tf2.21 tested -- -q tests
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script

from hpcdl.common.errors import EXIT_DONE, EXIT_FAILED, HpcdlError  # noqa: E402
from hpcdl.launch.logged import Screen, elapsed, on_our_screen  # noqa: E402
from tools.environments import World, environ_of, find_worlds, guarded, make  # noqa: E402
from tools.interpreters import InterpreterMissing  # noqa: E402

_CLOSING = re.compile(r"^(?:=+ )?(\d+ \w+.* in [\d.]+s.*?)(?: =+)?$", re.MULTILINE)
_NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Outcome:
    """What became of a world: ``state`` is "passed", "FAILED" or "SKIPPED", ``words`` say more."""

    world: str
    state: str
    words: str


def main(argv: Sequence[str]) -> int:
    """Runs ``try_worlds.py [--coverage WORLD] WORLD... -- PYTEST-ARGUMENTS``."""
    argv = list(argv)
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description="Run pytest in worlds or groups of worlds.")
    parser.add_argument("--coverage", metavar="WORLD", help="measure coverage in WORLD, ranks included")
    parser.add_argument("worlds", metavar="WORLD", nargs="+")
    options = parser.parse_args(argv[:cut])
    screen = Screen(sys.stderr)
    worlds = find_worlds(options.worlds)
    outcomes: List[Outcome] = []
    for world in worlds:
        tried = [outcome.world for outcome in outcomes if outcome.state != "SKIPPED"]
        outcomes.append(_try(world, argv[cut + 1 :], world.name == options.coverage, tried, screen))
    print(render(outcomes), flush=True)
    return exit_status(outcomes, os.environ)


def render(outcomes: Sequence[Outcome]) -> str:
    """Writes the closing table."""
    rows = [f"  {outcome.world:<14} {outcome.state:<8} {outcome.words}" for outcome in outcomes]
    return "\n".join(["", "worlds:", *rows])


def exit_status(outcomes: Sequence[Outcome], environ: Mapping[str, str]) -> int:
    """Gives 1 if a world failed, or was skipped while HPCDL_REQUIRE_ALL_WORLDS=1; or if none was tried."""
    states = [outcome.state for outcome in outcomes]
    if "FAILED" in states or "passed" not in states:
        return EXIT_FAILED
    if "SKIPPED" in states and environ.get("HPCDL_REQUIRE_ALL_WORLDS") == "1":
        return EXIT_FAILED
    return EXIT_DONE


def closing_line(output: str) -> Optional[str]:
    """Finds pytest's last line, such as "12 passed, 1 skipped in 3.20s"."""
    found = _CLOSING.findall(output)
    return found[-1] if found else None


def _try(
    world: World, arguments: Sequence[str], measure: bool, tried: Sequence[str], screen: Screen
) -> Outcome:
    """Tries one world after those that are ``tried``."""
    try:
        folder = make(world, screen)
    except InterpreterMissing as missing:
        screen.say(f"SKIPPED {world.name}: {missing}")
        return Outcome(world.name, "SKIPPED", str(missing))
    except HpcdlError as error:
        screen.say(f"FAILED {world.name}: {error}")
        return Outcome(world.name, "FAILED", str(error))
    screen.say(f"{world.name}: tests")
    environ = environ_of(folder, os.environ, os.geteuid())
    environ["HPCDL_TRIED_WORLDS"] = " ".join(tried)  # see tests/conftest.py
    data = folder / "coverage"
    if measure:
        environ["COVERAGE_FILE"] = str(data / "data")
        _clear(data)
    started = time.monotonic()
    command = ["python", *(["-m", "coverage", "run"] if measure else []), "-m", "pytest", *arguments]
    status, output = _run_and_show(command, environ)
    words = closing_line(output) or f"pytest ended with exit status {status}"
    if measure:
        for action in (["combine", "--quiet"], ["report"]):
            subprocess.run(["python", "-m", "coverage", *action], env=environ, cwd=ROOT, check=False)
    state = "passed" if status == 0 else "FAILED"
    if status == _NO_TESTS_COLLECTED:
        words = "no tests found"
    return Outcome(world.name, state, f"{words} ({elapsed(time.monotonic() - started)})")


def _clear(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()


def _run_and_show(command: List[str], environ: Mapping[str, str]) -> Tuple[int, str]:
    """Runs a command whose output is shown as it comes, and kept."""
    environ = {**environ, "PYTHONUNBUFFERED": "1"}
    if sys.stdout.isatty():
        environ["PYTEST_ADDOPTS"] = " ".join(filter(None, [environ.get("PYTEST_ADDOPTS"), "--color=yes"]))
    kept = bytearray()
    with on_our_screen(
        command,
        env=environ,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        assert child.stdout is not None
        while True:
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                break
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            kept += data
    return child.returncode, re.sub(r"\x1b\[[\d;]*m", "", kept.decode(errors="replace"))


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
