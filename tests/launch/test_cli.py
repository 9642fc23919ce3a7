"""The `hpcdl` command: one line and a status for every error, and an answer in a blink."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence

import pytest

import hpcdl
from hpcdl.common.errors import BadInput, Diverged
from hpcdl.launch.cli import COMMANDS, Command, find_command, main, render_help
from hpcdl.launch.sites.library import load_profile, site_names

ROOT = Path(__file__).resolve().parents[2]


def bad_input(argv: Sequence[str]) -> int:
    raise BadInput("np must be positive; received 0; pass e.g. --np 2")


def diverged(argv: Sequence[str]) -> int:
    raise Diverged("ranks 0 and 1 differ in dense/kernel")


def interrupted(argv: Sequence[str]) -> int:
    raise KeyboardInterrupt


def surprised(argv: Sequence[str]) -> int:
    raise ValueError("two\nlines")


def helped(argv: Sequence[str]) -> int:
    raise SystemExit(0)


def requeue(argv: Sequence[str]) -> int:
    return 85


FAKES = tuple(
    Command(entry.__name__, f"{__name__}:{entry.__name__}", "")
    for entry in (bad_input, diverged, interrupted, surprised, helped, requeue)
)


@pytest.fixture(autouse=True)
def _without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPCDL_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("name", "status", "line"),
    [
        ("bad_input", 2, "hpcdl: np must be positive; received 0; pass e.g. --np 2\n"),
        ("diverged", 1, "hpcdl: ranks 0 and 1 differ in dense/kernel\n"),
        ("interrupted", 130, ""),
        ("surprised", 1, "hpcdl: unexpected ValueError: two lines; HPCDL_DEBUG=1 shows where\n"),
        ("helped", 0, ""),
        ("requeue", 85, ""),
    ],
)
def test_every_ending_has_its_status_and_at_most_one_line(
    name: str, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name], commands=FAKES) == status
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback_before_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDL_DEBUG", "1")
    assert main(["bad_input"], commands=FAKES) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("hpcdl: np must be positive; received 0; pass e.g. --np 2\n")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("trian", "train"),
        ("horvod", "horovod"),
        ("--verson", "--version"),
        ("-version", "--version"),
        ("--hlep", "--help"),
    ],
)
def test_an_unknown_command_lists_near_names(typed: str, near: str) -> None:
    with pytest.raises(BadInput, match=rf"unknown command '{typed}'; did you mean {near}\? all"):
        find_command(typed, COMMANDS)


def test_an_unknown_command_that_is_near_to_none_lists_all() -> None:
    with pytest.raises(BadInput, match="all commands: train, submit, .*, horovod"):
        find_command("zzz", COMMANDS)


def test_an_option_in_place_of_a_command_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--np", "2"]) == 2
    assert capsys.readouterr().err.startswith("hpcdl: unknown command '--np'; all commands")


def test_no_arguments_give_the_help_on_stderr_and_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", render_help(COMMANDS) + "\n")


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hpcdl {hpcdl.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_exists_and_is_in_the_help(command: Command) -> None:
    assert callable(command.load())
    assert f"  {command.name} " in render_help(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ["site", "list"], ["site", "show"], ["site", "init"], ["site", "verify"],
        ["container", "build"], ["container", "pull"], ["horovod", "install"], ["horovod", "check"],
        ["data", "list"], ["data", "fetch"], ["jobs"], ["logs"], ["cancel"], ["show"], ["workloads"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_help_of_every_action_ends_with_an_example(
    words: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    assert f"  hpcdl {' '.join(words)}" in capsys.readouterr().out.replace("example: ", "  ")


HERE, THERE = ["bench", "run"], ["bench", "--site", "local"]


@pytest.mark.parametrize(
    ("words", "option", "said"),
    [
        (["submit"], "--controller mpi", "pass --launcher"),
        (["shell"], "--job-name a", "add it to what --dry-run prints"),
        (["shell"], "--dependency a", "add it to what --dry-run prints"),
        (["shell"], "--mail-user a", "add it to what --dry-run prints"),
        (["shell"], "--mail-type a", "add it to what --dry-run prints"),
        (["shell"], "--oversubscribe", "leave it out"),
        (["shell"], "--no-requeue", "leave it out"),
        (["shell"], "--max-requeues 3", "leave it out"),
        (["doctor"], "--no-requeue", "leave it out"),
        (["doctor"], "--max-requeues 3", "leave it out"),
        (HERE, "--run-dir a", "pass --study DIR"),
        (HERE, "--fresh", "pass another --study"),
        (HERE, "--checkpoint-every 1epoch", "leave it out"),
        (HERE, "--epochs 2", "pass --steps N"),
        (HERE, "--scale-epochs", "pass --steps N"),
        (THERE, "--run-dir a", "pass --study DIR"),
        (THERE, "--fresh", "pass another --study"),
        (THERE, "--checkpoint-every 1epoch", "leave it out"),
        (THERE, "--epochs 2", "pass --steps N"),
        (THERE, "--scale-epochs", "pass --steps N"),
        (THERE, "--controller mpi", "pass --launcher"),
        (THERE, "--job-name a", "leave it out"),
        (THERE, "--no-requeue", "leave it out"),
        (THERE, "--max-requeues 3", "leave it out"),
        (THERE, "--executor debug", "leave it out"),
        (THERE, "--jobs-dir a", "pass --study DIR"),
        (THERE, "--when", "hpcdl submit --when"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_an_option_without_effect_is_not_in_the_help_and_refused_with_the_way_out(
    words: List[str], option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    assert not re.search(rf"{option.split()[0]}(?![\w-])", capsys.readouterr().out)
    target = [] if words[0] in ("shell", "doctor") else ["fashion_mnist/fc64"]
    assert main([*words, *option.split(), *target]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"; received {option}; " in line
    assert said in line.split(f"received {option}; ")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["doctor"], "run a short job on N nodes, too (default: no job)"),
        (["doctor"], "call the job NAME (default: hpcdl-doctor)"),
        (["doctor"], "run for at most LIMIT: 30 (minutes), 8:00:00, 1-12:00:00 (default: 10)"),
        (["shell"], "ask for N tasks in all (default: one on each node)"),
        (["shell"], "pass this option on to salloc; may be repeated"),
        (THERE, "print the points and the node-hours that they may take; write nothing, submit nothing"),
        (HERE, "let the ranks of a run meet, and exchange, through mpi or gloo (default: mpi)"),
    ],
)
def test_an_option_that_is_another_one_here_is_told_as_it_is(
    words: List[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "words", [[], *([command.name] for command in COMMANDS), ["bench", "--site", "local"]], ids=" ".join
)
def test_an_example_of_the_help_that_makes_a_job_names_the_account_where_the_site_wants_one(
    words: List[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*words, "--help"])
    for line in capsys.readouterr().out.splitlines():
        found = re.match(r"  hpcdl (submit|bench|shell|doctor) .*--site (\w+)", line)
        if found and (found[1] != "doctor" or "--nodes" in line) and found[2] in site_names(tmp_path):
            assert load_profile(found[2], tmp_path).site.account_required is not True or " -A " in line, line


def test_help_takes_less_than_150_ms() -> None:
    """Of a core, since other tests run beside this one, and without what coverage adds to each start of Python.

    `tools/speed.py` times the answer itself.
    """
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from hpcdl.launch.cli import main; main(['--help'])"
    assert min(_cpu_seconds_of([sys.executable, "-I", "-S", "-c", code]) for _ in range(3)) < 0.15


def test_a_reader_who_leaves_early_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "hpcdl", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    with child.stderr:
        assert child.stderr.read() == b""
    child.wait()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_ends_nothing_and_no_file_takes_its_place(closed: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os, sys\nfrom hpcdl.runtime.use import note_use\n"
        "note_use(os.environ)\nprint('out')\nprint('err', file=sys.stderr)\n"
    )
    train = "train --np 2 --oversubscribe --launcher gloo --log-dir logs -- train.py"
    for words, status in (("site list", 0), ("unknown", 2), (train, 0)):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m hpcdl {words} {closed}', sys.executable],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == status
    assert set((tmp_path / "logs" / "rank-0000.log").read_text().split()) == {"out", "err"}


def _cpu_seconds_of(argv: List[str]) -> float:
    child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.WEXITSTATUS(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime
