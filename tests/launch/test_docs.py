"""Commands of hpcdl that the pages show are such as it takes: run here where that is cheap, tried dry, or parsed.

README.md's are run by tests/parallel/test_readme.py, those of `hpcdl bench` by tests/launch/bench/test_bench_docs.py.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import List

import pytest

from hpcdl.common.cache import cache_folder
from hpcdl.common.data_words import parse_data
from hpcdl.common.errors import HpcdlError
from hpcdl.common.words import parse_train_words
from hpcdl.launch.cli import COMMANDS, find_command, main
from hpcdl.launch.sites.library import load_profile
from hpcdl.launch.sites.live import Cluster, ask_cluster, profile_text
from hpcdl.launch.sites.profile import Container, Site, leaves
from hpcdl.launch.submission.inside import ImageOptions
from tests.launch.sites.test_live import nothing, recorded
from tests.pages import PAGES, mentions_of, words_of_hpcdl

ROOT = Path(__file__).resolve().parents[2]
TEXT = "".join((ROOT / name).read_text() for name in ("docs/launching.md", "containers/README.md"))
SHOWN = words_of_hpcdl(*(page for page in PAGES if page != "README.md"))
ABOUT_DATA = [argv for argv in words_of_hpcdl(*PAGES) if argv[0] in ("data", "workloads")]
#: Each has a test below, or in test_bench_docs.py, that takes all commands of SHOWN which begin with it.
KINDS = {
    "submit",
    "container",
    "shell",
    "doctor",
    "site",
    "train",
    "jobs",
    "logs",
    "cancel",
    "horovod",
    "bench",
}
KINDS |= {"data", "workloads", "--version"}
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
    (home / "bash").symlink_to(shutil.which("bash") or "")  # by which it looks into an environment
    monkeypatch.setenv("PATH", str(home))
    assert main([*argv, *(["--quick"] if "none" in argv else [])]) == 1  # which else loads TensorFlow
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
def test_a_training_is_taken(argv: List[str]) -> None:
    """They are parsed here; tests/parallel/test_docs.py runs some, and plans others."""
    command, _ = parse_train_words(argv[1:], "hpcdl train", {"image": ImageOptions})
    assert command.target_kind in ("script", "workload", "function")


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "site"], ids=" ".join)
def test_a_question_about_a_site_is_answered(
    argv: List[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hpcdl.launch.sites.command.ask_cluster", lambda: ask_cluster(recorded, nothing))
    if argv[1] == "init":
        (home / "hpcdl" / "sites" / f"{argv[2]}.toml").unlink()
    assert main(argv) == 0
    assert argv[2] in capsys.readouterr().out
    assert load_profile(argv[2], home / "hpcdl").site


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[0] == "horovod"], ids=" ".join)
def test_an_installation_of_horovod_is_taken(
    argv: List[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to where it asks that Python: to build Horovod takes minutes."""

    def ask(python: Path) -> None:
        raise HpcdlError(f"asked {python}")

    monkeypatch.setattr("hpcdl.launch.horovod.read_target", ask)
    assert main([re.sub("^/project/.*/python3$", sys.executable, word) for word in argv]) == 1
    assert capsys.readouterr().err == f"hpcdl: asked {sys.executable}\n"


@pytest.mark.parametrize(
    "argv", [argv for argv in SHOWN if argv[0] in ("jobs", "logs", "cancel")], ids=" ".join
)
def test_a_question_about_a_job_is_taken(
    argv: List[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asks_for_one = "12345" in argv
    assert main(argv) == (2 if asks_for_one else 0)
    assert ("no job 12345 in" if asks_for_one else "no jobs in") in capsys.readouterr().err


def test_where_a_page_names_the_cache_it_tells_how_to_move_it(home: Path) -> None:
    texts = {page: (ROOT / page).read_text() for page in PAGES}
    naming = {page for page, text in texts.items() if "~/.cache/hpcdl" in text}
    assert naming == {page for page, text in texts.items() if "HPCDL_CACHE" in text}
    assert cache_folder({"HOME": "/home/me"}) == Path("/home/me/.cache/hpcdl")
    assert {"README.md", "docs/data.md", "docs/launching.md"} <= naming


def test_each_kind_of_command_has_its_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert {argv[0] for argv in SHOWN} == KINDS
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in mentions_of(page) if line.startswith("hpcdl ")})
)
def test_a_command_in_running_text_has_the_options_that_it_is_told_with(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *words = line.split()[1:]
    if name == "COMMAND":
        words[:0], name = [], "train"
    find_command(name, COMMANDS)
    part = words[:1] if words and name in ("bench", "container", "data", "horovod", "site") else []
    assert main([name, *(word for word in part if word.isalpha()), "--help"]) == 0
    known = re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", capsys.readouterr().out)
    assert [word for word in words if word.startswith("-") and word.partition("=")[0] not in known] == []


@pytest.mark.parametrize("argv", ABOUT_DATA, ids=" ".join)
def test_a_command_about_data_is_taken(
    argv: List[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs what needs no network; `data fetch` is parsed, and tests/runtime/test_datasets.py fetches from a server."""
    if argv[:2] == ["data", "fetch"]:
        assert parse_data(argv[1:]).names
    else:
        monkeypatch.setenv("HPCDL_CACHE", str(tmp_path))
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        assert main([word.replace("/scratch/data", str(tmp_path)) for word in argv]) == 0
        assert "mnist" in capfd.readouterr().out
