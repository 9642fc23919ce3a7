"""The trainings of docs/training.md and docs/data.md are run or planned; of other programs than hpcdl, every command
that a page shows is run, or stands here with the reason why it is not."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from hpcdl.common.options import names_of
from hpcdl.common.words import WorkloadOptions
from hpcdl.runtime.training import Run
from tests.bare import ROOT, environ_of_script, needs_mpirun, under_mpirun
from tests.parallel.launching import run_hpcdl
from tests.parallel.programs.cases import IS_KERAS_3

pytestmark = pytest.mark.skipif(not IS_KERAS_3, reason="what a command is does not depend on Keras")
#: Whose commands of hpcdl are tried by which test.
PAGES = {
    "README.md": "tests/parallel/test_readme.py",
    "docs/training.md": "tests/parallel/test_docs.py",
    "docs/data.md": "tests/launch/test_docs.py",
    "docs/launching.md": "tests/launch/test_docs.py",
    "containers/README.md": "tests/launch/test_docs.py",
    "docs/benchmarking.md": "tests/launch/bench/test_bench_docs.py",
}
#: What other pages show of hpcdl, and all show of other programs: run here, with words that make it short.
RUN = {
    "python tools/results.py --table docs/results.json": (),
    "mpirun -np 2 python docs/examples/three_lines.py": ("--samples", "2000", "--epochs", "1"),
}
#: Or not run, and why.
NOT_RUN = {
    "make demo": "makes an environment first; what it trains is tried by test_examples.py and on docs/training.md",
    "make test": "runs the tests",
    "python tools/results.py --data-dir DIR --epochs 5": "trains for minutes, on data that are not on every machine",
    "python tools/results.py --data-dir DIR --epochs 3": "likewise",
    "python tools/results.py --epochs 3": "trains for minutes",
    "python tools/in_turns.py --rounds 12": "measures for minutes; test_in_turns.py runs two short rounds",
    "python tools/speed.py": "measures for half an hour, beside PyTorch",
    "python tools/simulated_worlds.py --rounds 11": "measures for minutes; test_simulated_worlds.py makes such worlds",
    "hpcdl bench --np 1,2 --scaling weak,strong --rounds 7": "measures for half an hour",
    "hpcdl bench report docs/benchmarks/two-cores/scaling": "README.md has it, too",
    "hpcdl bench predict --step-ms 476": "docs/benchmarking.md has it, too",
    "python3 -m venv ": "makes an environment, as tools/environments.py does",
    "pip install ./hpcdl[launch]": "fetches packages",
    "/project/abc123p/tf/bin/pip install tensorflow": "likewise",
    "IMAGE=/path/to/image.sif sbatch": "tests/cluster/test_jobs.py submits the batch files",
}
TRAINING_PAGE = (ROOT / "docs/training.md").read_text()
TRAININGS = [line for line in TRAINING_PAGE.splitlines() if line.startswith("hpcdl train")]
#: Of which the page shows what it prints.
SAMPLE = "hpcdl train --np 2 fashion_mnist/fc64 --epochs 2"
PLANNED = [
    line
    for line in (ROOT / "docs/data.md").read_text().splitlines()
    if line.startswith("hpcdl train")
    and "--data-dir" not in line  # the data of which are not on every machine
]


def commands_of(page: Path):
    """Lists the commands in the blocks of a page, without the comments behind them."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for language, block in fenced if not language for line in block.splitlines()]
    starts = re.compile(r"(hpcdl|python3?|[\w/]*\bpip|mpirun|make|[A-Z]+=\S+) (?!.*──)")
    return [" ".join(shlex.split(line, comments=True)) for line in lines if starts.match(line)]


@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_of_the_page_trains(command, tmp_path):
    (tmp_path / "train.py").write_text(
        "import sys\nimport hpcdl\nrun = hpcdl.init()\nrun.broadcast([])\nrun.print('learned', *sys.argv[1:])\n"
    )
    words = shlex.split(command)[1:]
    is_script, is_sample = "train.py" in words, command == SAMPLE
    short = [] if is_script or is_sample else ["--epochs", "1"]
    out = run_hpcdl([words[0], "--oversubscribe", *words[1:], *short], tmp_path)
    assert ("learned --my-flag" if is_script else "test accuracy") in out
    if is_sample:
        said = [form_of(line) for line in out.splitlines()]
        plan, end = re.findall(r"^```text\n(.*?)^```$", TRAINING_PAGE, re.DOTALL | re.MULTILINE)
        assert [line for line in plan.splitlines() if form_of(line) not in said] == []
        # The last line is on standard error, and the one before needs matplotlib, which an image may lack.
        assert [line for line in end.splitlines()[:-2] if form_of(line) not in said] == []


def form_of(line):
    """Leaves out of a line what differs between machines, and between runs of one."""
    for own in (r" from .*", r"(?<=started by )\w+", r"accuracy [\d.]+", r"\d+(?= samples/s)", r"-\w{8}/"):
        line = re.sub(own, "", line)
    return line


def test_every_option_of_a_workload_is_on_the_page_with_the_words_of_a_script():
    text = TRAINING_PAGE.partition("\n## Callbacks")[0]
    about_data = {"--data", "--data-dir"}  # on docs/data.md
    assert [name for name in {*names_of(WorkloadOptions)} - about_data if f"`{name}" not in text] == []
    rows = [
        line.split(" | ") for line in text.splitlines() if line.startswith("| `--") and line.count("|") == 4
    ]
    beside = " ".join(row[1] for row in rows if row[0] != "| `--xla`" and row[1].startswith("`"))
    named = set(re.findall(r"\b(\w+)=", beside))
    fitted = inspect.signature(Run.fit).parameters
    assert named == set(fitted) & {field.name for field in dataclasses.fields(WorkloadOptions)}
    for call in re.findall(r"`(tf\.keras\.[\w.]+)\(", beside):
        assert callable(functools.reduce(getattr, call.split(".")[1:], tf)), call


@pytest.mark.parametrize("command", PLANNED)
def test_a_training_of_the_page_about_data_is_planned(command, tmp_path):
    words = shlex.split(command)[1:]
    assert "plan of" in run_hpcdl([words[0], "--dry-run", "--oversubscribe", *words[1:]], tmp_path)


def test_every_command_of_a_page_is_tried_or_has_a_reason():
    pages = [path for where in ("*.md", "docs/**/*.md", "*/README.md") for path in ROOT.glob(where)]
    found = {
        command
        for page in pages
        for command in commands_of(page)
        if not (command.startswith("hpcdl ") and str(page.relative_to(ROOT)) in PAGES)
    }
    assert {command for command in RUN if command not in found} == set()
    left = {command for command in found if command not in RUN}
    assert [command for command in left if not command.startswith(tuple(NOT_RUN))] == []
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in left)] == []
    for page, test in PAGES.items():
        assert Path(page).name in (ROOT / test).read_text()


def test_a_table_is_printed_from_its_records_as_the_page_says():
    (command,) = [command for command in RUN if command.startswith("python ")]
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=str(ROOT), env=environ_of_script(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (ROOT / "docs/results.md").read_text()


@needs_mpirun
def test_a_script_runs_under_mpirun_as_the_page_says(tmp_path):
    ((command, more),) = [(command, more) for command, more in RUN.items() if command.startswith("mpirun ")]
    mpirun, np_flag, count, python, script = shlex.split(command)
    assert (mpirun, np_flag, python) == ("mpirun", "-np", "python")
    ended = under_mpirun(tmp_path, [str(ROOT / script), *more], np=int(count))
    assert ended.status == 0, ended.said
    assert "2 rank(s): test accuracy" in ended.out
