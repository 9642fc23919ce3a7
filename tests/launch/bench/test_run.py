"""What `hpcdl bench run` refuses, or says, before a study begins; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE
from hpcdl.launch.cli import main


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Plans a study in a folder of its own; gives status, what was said, and what went wrong."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        status = main(["bench", "--dry-run", "--oversubscribe", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_script_that_is_not_there_is_refused(bench):
    status, _, error = bench("nosuch.py")
    assert (status, "script that exists; received nosuch.py" in error) == (EXIT_BAD_INPUT, True)


@pytest.mark.parametrize("word", ["--rounds=3", "--site", "-N"])
def test_words_of_a_study_after_a_script_are_refused_unless_it_knows_them(bench, word):
    Path("my_script.py").touch()
    status, said, error = bench("my_script.py", "--mine", word, "2")
    assert (status, said) == (EXIT_BAD_INPUT, "")
    assert "hpcdl bench run's own options stand before TARGET; received " + word in error
    Path("my_script.py").write_text(f"# takes {word.partition('=')[0]}")
    status, said, error = bench("my_script.py", "--mine", word, "2")
    assert (status, error) == (EXIT_DONE, "")
    assert "9 round(s) of " in said


@pytest.mark.parametrize("name", ["run.py", "predict.py", "compare.py", "./report", "report:build"])
def test_a_script_may_have_the_name_of_a_part(bench, name):
    Path("run.py").touch()
    Path("predict.py").touch()
    Path("compare.py").touch()
    _, _, error = bench(name)
    assert "unknown part" not in error


def test_a_mistyped_part_is_told():
    assert main(["bench", "reprot"]) == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--steps", "9"), "--steps must be a whole number >= 10"),
        (("--timeout-min", "0"), "--timeout-min must be a number > 0"),
    ],
)
def test_what_could_tell_nothing_is_refused(bench, words, says):
    status, _, error = bench(*words, "fashion_mnist/fc64")
    assert (status, says in error) == (EXIT_BAD_INPUT, True)
