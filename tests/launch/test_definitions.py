"""The definition files in containers/ are what is rendered, hold what the tests hold, and can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdl.launch.definitions import CPU_REQUIREMENTS, RECIPES, problems, render_all

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_in_the_repository_are_as_rendered() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "containers").glob("*.def")}
    assert written == render_all()


@pytest.mark.parametrize("name", RECIPES)
def test_a_definition_can_be_built_as_far_as_its_text_tells(name: str) -> None:
    text = render_all()[f"hpcdl-{name}.def"]
    assert problems(text) == []
    assert ("not built here" in text) == (name != "cpu")


def test_the_image_for_cpus_holds_the_newest_world_of_the_tests() -> None:
    words = [(ROOT / "requirements" / name).read_text().split() for name in ("tf2.21.txt", "test.txt")]
    pinned = {word.rstrip(";") for words in words for word in words if "==" in word}
    assert set(CPU_REQUIREMENTS) <= pinned


def test_the_image_for_cpus_keeps_nothing_of_hpcdl() -> None:
    post = render_all()["hpcdl-cpu.def"].split("%post")[1].split("%environment")[0]
    assert "rm -rf /opt/source" in post


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Bootstrap: dockr\nFrom: a\n", "Bootstrap must be one of"),
        ("Bootstrap: docker\n", "Bootstrap: docker needs From"),
        ("From: a\n", "it is None"),
        ("Bootstrap: docker\nFrom: a\n%pots\n    true\n", "%pots is no section"),
        ("From: a\nBootstrap: docker\n", "Bootstrap: docker needs From"),  # it must come first
        ("Bootstrap: docker\nFrom: a\nBootstrap: docker\n", "Bootstrap: docker needs From"),
    ],
)
def test_what_a_build_would_stumble_over_is_told_before(text: str, said: str) -> None:
    assert any(said in problem for problem in problems(text))


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\nBootStrap: docker # of a kind\nFROM: ubuntu:22.04\n",
        "bootstrap: localimage\nfrom: a.sif\n%Post\n    a\n%post\n\tb\n",
        "Bootstrap: oras\nFrom: registry/a:1\n",
        "Bootstrap: {{ AGENT }}\nFrom: a\n%arguments\n    AGENT=docker\n",
        "Bootstrap: yum\nOSVersion: 9\nMirrorURL: http://a/%{OSVERSION}\nInclude: yum \\\n   gcc\n",
        "Bootstrap: docker\nFrom: a\nStage: build\n%setup\n    a\n"
        "Bootstrap: docker\nFrom: b\n%files from build\n    /a /b\n%post -c /bin/bash\n    a\n",
        "Bootstrap: docker\nFrom: a\n%appinstall foo\n    a\n%apprun foo\n    b\n%startscript\n    c\n",
    ],
)
def test_what_apptainer_takes_is_no_problem(text: str) -> None:
    assert problems(text) == []
