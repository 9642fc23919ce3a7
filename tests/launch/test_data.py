"""``hpcdl data`` and ``hpcdl workloads`` as a user types them, with homes and folders of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest

from hpcdl.common import data_sets, workloads
from hpcdl.launch.cli import main
from hpcdl.launch.data import render

Run = Callable[..., Tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a machine without data and without network."""
    for name, value in {
        "HOME": str(tmp_path),
        "PATH": "/nowhere",
        "https_proxy": "http://localhost:1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("HPCDL_DATA", "HPCDL_CACHE", "KERAS_HOME", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))

    def run(*argv: str) -> Tuple[int, str, str]:
        status = main(list(argv))
        shown = capfd.readouterr()
        return status, shown.out, shown.err

    return run


def test_what_is_not_here_is_listed_with_the_command_that_gets_it(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("data", "list", "--json")
    assert status == 0
    listed = {data_set["name"]: data_set for data_set in json.loads(out)}
    assert list(listed) == data_sets.names()
    assert listed["imdb"]["state"] == "not here"
    assert listed["cifar10"]["urls"] == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]
    assert "hpcdl data fetch" in render(list(listed.values())).splitlines()[-1]


def test_a_damaged_file_is_listed_as_wrong_and_gives_status_1(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "imdb.npz").write_bytes(b"cut short")
    status, out, _ = run("data", "list", "--data-dir", str(folder))
    assert status == 1
    (row,) = (line for line in out.splitlines() if line.startswith("imdb "))
    assert row.split()[-1] == "wrong"
    assert f"imdb: {folder}/imdb.npz: expected a file with SHA-256 69664113be75" in out


def test_without_a_network_fetch_says_in_one_line_what_failed_and_keeps_nothing(
    run: Run, tmp_path: Path
) -> None:
    status, out, err = run("data", "fetch", "fashion_mnist", "--to", str(tmp_path / "here"))
    (line,) = err.splitlines()
    assert (status, out) == (2, "")
    assert "Debian's package dataset-fashion-mnist: apt-get and dpkg-deb not found" in line
    assert "Keras' download: https://storage.googleapis.com/" in line
    assert [path.name for path in (tmp_path / "here").iterdir()] == [".fashion_mnist.lock"]


@pytest.mark.parametrize(
    ("words", "cache", "said"),
    [
        (["--to", "file/data"], "cache", "--to must be a folder that can be written; received file/data (Not a"
         " directory); pass another --to"),
        ([], "file", "hpcdl's cache must be a folder that can be written; received {here}/file/data (Not a"
         " directory); set HPCDL_CACHE to one, or pass --to DIR"),
    ],
)  # fmt: skip
def test_fetch_names_a_way_out_that_it_has_itself(
    words: List[str], cache: str, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCDL_CACHE", str(tmp_path / cache))
    assert run("data", "fetch", "mnist", *words) == (2, "", f"hpcdl: {said.format(here=tmp_path)}\n")


def test_fetch_of_what_is_there_and_damaged_names_a_way_out_that_it_has_itself(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "imdb.npz").write_bytes(b"cut short")
    status, _, err = run("data", "fetch", "imdb", "--to", str(tmp_path))
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.endswith("; delete it, and it is fetched again, or pass another --to\n")


def test_data_without_words_shows_its_usage_and_is_bad_input(run: Run) -> None:
    status, out, err = run("data")
    assert (status, out) == (2, "")
    assert err.startswith("usage: hpcdl data list")


def test_an_action_that_there_is_not_starts_nothing(run: Run) -> None:
    status, _, err = run("data", "fecth")
    assert (status, err) == (
        2,
        "hpcdl: hpcdl data takes list or fetch; received fecth; did you mean fetch? see hpcdl data --help\n",
    )


def test_workloads_are_listed_with_parameters_and_what_the_workshop_reached(run: Run) -> None:
    status, out, _ = run("workloads")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert set(workloads.names()) <= set(rows)
    assert "1,200,778" in rows["mnist/cnn_batchnorm"]
    assert rows["mnist/cnn_dropout"].endswith("99.2 %")
    status, out, _ = run("workloads", "--json")
    facts: Any = {row["name"]: row for row in json.loads(out)}
    assert facts["mnist/fc64"]["num_parameters"] == 55_050
    assert facts["mnist/fc64"]["recommended"]["lr_scaling"] == "linear"
    assert facts["synthetic/resnet50"]["num_non_trainable"] == 53_120


@pytest.mark.parametrize("word", ["mnist/fc65", "minst/fc64", "imagenet/resnet50"])
def test_a_workload_that_there_is_not_is_refused_before_anything_starts(
    run: Run, word: str, tmp_path: Path
) -> None:
    status, out, err = run("train", "--np", "2", word)
    assert (status, out) == (2, "")
    assert err.startswith(f"hpcdl: unknown workload {word!r}; ")
    assert len(err.splitlines()) == 1
