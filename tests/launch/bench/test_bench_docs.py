"""The pages' commands of `hpcdl bench` are ones that it takes, and the tables of docs/scaling-model.md are today's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcdl.launch.bench import allreduce
from hpcdl.launch.bench.tables import to_markdown
from hpcdl.launch.cli import main
from tests.launch.bench.studies import write_run, write_study
from tests.pages import PAGES, words_of_hpcdl
from tools.scaling_model import (
    make_computed_table,
    make_table,
    read_efficiencies,
    read_hardware,
    read_published,
)

ROOT = Path(__file__).resolve().parents[3]
#: Those of README.md are run by tests/parallel/test_readme.py.
SHOWN = [
    argv for argv in words_of_hpcdl(*PAGES) if argv[0] == "bench" and argv not in words_of_hpcdl("README.md")
]


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[1] != "allreduce"], ids=" ".join)
def test_a_command_of_the_docs_is_taken(argv, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    if "--output" in argv:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("my_script.py").touch()
    is_read = argv[1] in ("report", "compare", "predict")
    for name in ("first", "before", "after", "nodes") if is_read else ():
        write_study(tmp_path / "bench" / name, slowness=(1.0,) * 9)
    for count, name in enumerate(("one", "two"), start=1):
        (tmp_path / "runs").mkdir(exist_ok=True)
        write_run(tmp_path / "runs" / name, count, [0.8, 0.91], 1.0 / count, 100.0 * count)
    seconds = {who: {"1024": [1e-4], "4096": [2e-4]} for who in ("mpi", "horovod")}
    sums = {"schema_version": 1, "kind": "allreduce", "num_ranks": 2, "seconds": seconds}
    (tmp_path / "bench").mkdir(exist_ok=True)
    (tmp_path / "bench" / "allreduce.json").write_text(json.dumps(sums))
    Path("measured.csv").write_text("replicas,samples_per_second\n1,100\n2,195\n4,380\n")
    if not is_read:
        argv = [argv[0], "--dry-run", "--oversubscribe", *argv[1:]]
    assert main(argv) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("argv", [argv for argv in SHOWN if argv[1] == "allreduce"], ids=" ".join)
def test_sums_are_measured_as_the_docs_say(argv, tmp_path, monkeypatch, capsys):
    """Up to the measuring, which tests/parallel/test_bench.py does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(allreduce, "measure", lambda options, placement: {"bytes": options.bytes})
    monkeypatch.setattr(allreduce, "render", str)
    assert main([*argv[:2], "--oversubscribe", *argv[2:]]) == 0
    (record,) = [tmp_path / argv[-1]] if "--json" in argv else (tmp_path / "bench").glob("allreduce-*.json")
    sizes = argv[argv.index("--bytes") + 1].split(",") if "--bytes" in argv else range(9)
    assert len(json.loads(record.read_text())["bytes"]) == len(sizes)
    assert f"record: {record.relative_to(tmp_path)}" in capsys.readouterr().out


def test_all_parts_are_shown():
    assert {"report", "compare", "predict", "allreduce"} <= {argv[1] for argv in SHOWN}


def test_the_tables_of_the_scaling_model_are_what_its_program_writes():
    text, studies = (ROOT / "docs" / "scaling-model.md").read_text(), read_published()
    assert to_markdown(make_table(studies)) in text
    assert to_markdown(make_computed_table(studies, read_efficiencies(), read_hardware())) in text


def test_no_published_study_is_left_out():
    studies, efficiencies = read_published(), read_efficiencies()
    tables = make_table(studies), make_computed_table(studies, efficiencies, read_hardware())
    named = {row[0] for table in tables for row in table.rows}
    assert {*studies, *efficiencies} <= named
    assert {name for name, _ in read_hardware()} <= named
