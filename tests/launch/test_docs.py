"""Commands in docs/launching.md, docs/data.md, containers/README.md are such as hpcdl takes, tried dry if possible."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import List

import pytest

from hpcdl.common.data_words import parse_data
from hpcdl.common.words import parse_train, parse_train_words
from hpcdl.launch.cli import COMMANDS, find_command, main
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.sites.live import Cluster, profile_text
from hpcdl.launch.sites.profile import Container, Site, leaves
from hpcdl.launch.submission.inside import ImageOptions

ROOT = Path(__file__).resolve().parents[2]
TEXT = "".join((ROOT / name).read_text() for name in ("docs/launching.md", "containers/README.md"))
SHOWN = [shlex.split(line)[1:] for line in TEXT.splitlines() if line.startswith("hpcdl ")]
ABOUT_DATA = [
    shlex.split(line)[1:]
    for line in (ROOT / "docs" / "data.md").read_text().splitlines()
    if line.startswith("hpcdl ")
]
ABOUT_TRAINING = [
    shlex.split(line)[1:]
    for line in (ROOT / "docs" / "training.md").read_text().splitlines()
    if line.startswith("hpcdl ")
]
SITE = """
scheduler = "slurm"
default_queue = "q"
[container]
kind = "apptainer"
[queues.q]
partition = "q"
cores_per_node = 8
whole_nodes = true
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user of the docs stands: beside a script, outside of any job, with a profile of their own."""
    sites = tmp_path / "hpcdl" / "sites"
    sites.mkdir(parents=True)
    (sites / "mycluster.toml").write_text(SITE)
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "submit"], ids=" ".join)
def test_a_submission_of_the_docs_can_be_made(
    argv: List[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "--dry-run", *(["--oversubscribe"] if "local" in argv else []), *argv[1:]]) == 0
    shown = capsys.readouterr()
    assert ("hpcdl.runtime" in shown.out) if "local" in argv else shown.out.startswith("#!/bin/bash")


@pytest.mark.parametrize("name", ["mycluster", "bridges2"])
def test_the_file_for_a_site_that_the_docs_show_is_taken(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = TEXT.split("\n## At a cluster that hpcdl does not know\n")[1]
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", section.split("\n## ")[0], re.DOTALL | re.MULTILINE)
    before, bracket, after = SITE.partition("[") if name == "mycluster" else ("", "", "")
    (home / "hpcdl" / "sites" / f"{name}.toml").write_text(before + shown + bracket + after)
    site = load_profile(name, home / "hpcdl").site
    assert (site.account_required, site.socket_ifname, site.environ) == (True, "ib0", {"NCCL_DEBUG": "INFO"})
    words = ["submit", "--site", name, "--image", "none", "-t", "30", "--dry-run", "train.py"]
    assert main(words) == 2
    assert "must name an account; received none" in capsys.readouterr().err
    assert main([*words[:-1], "-A", "abc123p", "train.py"]) == 0
    assert "module load python/3.12\nsource /project/abc123p/tf/bin/activate\n" in capsys.readouterr().out


def test_what_site_init_writes_is_told_as_the_docs_do(home: Path) -> None:
    cluster = Cluster("c", "22.05", True, True, ("pmix",), "pmix", {}, None)
    (line,) = [
        one for one in profile_text(cluster, "c", "h", "2026-01-01").splitlines() if one.startswith("mpi")
    ]
    assert f"`{line}`" in TEXT
    (home / "hpcdl" / "sites" / "mycluster.toml").write_text('mpi = "pmi2"\n' + SITE)
    assert load_profile("mycluster", home / "hpcdl").site.mpi == "pmi2"


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] in ("container", "shell")], ids=" ".join)
def test_getting_an_image_and_into_it_is_planned_as_the_docs_say(
    argv: List[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "my.def").write_text("Bootstrap: docker\nFrom: a\n")
    at = 2 if argv[0] == "container" else 1
    assert main([*argv[:at], "--dry-run", *argv[at:]]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "doctor"], ids=" ".join)
def test_the_doctor_of_the_docs_finds_that_this_is_not_the_site(
    argv: List[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert main(argv) == 1
    shown = capsys.readouterr().out
    assert "no sbatch here" in shown
    assert "not tried" in shown
    if "--report" in argv:
        assert "no sbatch here" in (home / "ticket.txt").read_text()


def test_what_stands_beside_a_line_of_the_centres_script_exists(capsys: pytest.CaptureFixture[str]) -> None:
    section = TEXT.split("## Coming from the centre's own Horovod scripts")[1].split("\n## ")[0]
    here = " ".join(line.split(" | ")[-1] for line in section.splitlines() if line.startswith("| "))
    assert main(["submit", "--help"]) == 0
    known = capsys.readouterr().out + " ".join(
        field.name for cls in (Site, Container) for field in leaves(cls)
    )
    options = set(re.findall(r"--[a-z-]+(?=[ =`])", here)) - {"--name"}  # that one stands for any
    assert {option for option in options if option not in known} == set()
    assert len(options) > 5
    for name in re.findall(r"`([a-z_]+)`(?: and `[a-z]+`)? in the profile", here):
        assert name in known
    training = (ROOT / "hpcdl" / "runtime" / "training.py").read_text()
    for name in re.findall(r"(\w+)=(?:\"linear\"|3|True|128)", here):
        assert f"        {name}: " in training


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "train"], ids=" ".join)
def test_a_run_in_an_allocation_is_taken(argv: List[str]) -> None:
    command, _ = parse_train_words(argv[1:], "hpcdl train", {"image": ImageOptions})
    assert command.target == "train.py"


@pytest.mark.parametrize(
    "argv", [argv for argv in SHOWN if argv[0] in ("jobs", "logs", "cancel")], ids=" ".join
)
def test_a_question_about_a_job_is_taken(
    argv: List[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asks_for_one = "12345" in argv
    assert main(argv) == (2 if asks_for_one else 0)
    assert ("no job 12345 in" if asks_for_one else "no jobs in") in capsys.readouterr().err


@pytest.mark.parametrize("argv", ABOUT_TRAINING, ids=" ".join)
def test_a_command_about_training_is_taken(argv: List[str]) -> None:
    assert argv[0] == "train"
    assert parse_train(argv[1:]).target_kind in ("script", "workload")


def test_all_commands_of_the_docs_exist() -> None:
    assert {"submit", "logs", "jobs", "cancel", "site", "train", "doctor"} <= {argv[0] for argv in SHOWN}
    for argv in SHOWN:
        assert main(argv) == 0 if argv == ["--version"] else find_command(argv[0], COMMANDS)


@pytest.mark.parametrize("argv", ABOUT_DATA, ids=" ".join)
def test_a_command_about_data_is_taken(
    argv: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs what needs no network and no ranks; reads the others."""
    if argv[0] == "train":
        assert parse_train(argv[1:]).target_kind == "workload"
    elif argv[:2] == ["data", "fetch"]:
        assert parse_data(argv[1:]).names
    else:
        monkeypatch.setenv("HPCDL_CACHE", str(tmp_path))
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        assert main([word.replace("/scratch/data", str(tmp_path)) for word in argv]) == 0
        assert "mnist" in capfd.readouterr().out
