"""The words of ``hpcdl data``: read, written again as the same command, refused in one line."""

from __future__ import annotations

from typing import List

import pytest

from hpcdl.common.data_words import DataCommand, data_argv, parse_data
from hpcdl.common.errors import BadInput


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["list"], DataCommand("list")),
        (["list", "--data-dir", "/d", "--json"], DataCommand("list", data_dir="/d", as_json=True)),
        (["fetch", "mnist", "imdb", "--to", "/d"], DataCommand("fetch", ("mnist", "imdb"), to="/d")),
    ],
)
def test_words_and_command_mean_the_same(argv: List[str], command: DataCommand) -> None:
    assert parse_data(argv) == command
    assert parse_data(data_argv(command)) == command


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "takes list or fetch; received nothing"),
        (["fecth", "mnist"], "received fecth; did you mean fetch"),
        (["fetch"], "required: NAME; see hpcdl data fetch --help"),
        (["fetch", "mnits"], "unknown data set 'mnits'; .*did you mean mnist"),
        (["fetch", "synthetic"], "unknown data set 'synthetic'; known are mnist, fashion_mnist"),
        (["list", "mnist"], "unrecognized arguments: mnist; see hpcdl data list --help"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(argv: List[str], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        parse_data(argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argv", [["--help"], ["list", "--help"], ["fetch", "--help"]])
def test_help_has_examples_and_exit_statuses(argv: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse_data(argv)
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert "hpcdl data" in shown
    if len(argv) > 1:
        assert "examples:" in shown
        assert "Exit status:" in shown
