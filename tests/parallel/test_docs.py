"""The trainings of docs/training.md and docs/data.md are run or planned; of other programs than hpcdl, every command
that a page shows, in a block or in running text, is run, or stands here with the reason why it is not.

Commands of hpcdl are tried by tests/launch/test_docs.py, which says where.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import inspect
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from hpcdl.common.data_sets import spec_of
from hpcdl.common.options import names_of
from hpcdl.common.words import WorkloadOptions
from hpcdl.runtime.training import Run
from tests.bare import ROOT, environ_of_script, needs_mpirun, under_mpirun
from tests.pages import PAGES, commands_of, mentions_of
from tests.parallel.launching import run_hpcdl
from tests.parallel.programs.cases import IS_KERAS_3

pytestmark = pytest.mark.skipif(not IS_KERAS_3, reason="what a command is does not depend on Keras")
#: What is run here, with words that make it short.
RUN = {
    "python tools/results.py --table docs/results.json": (),
    "python tools/scaling_model.py": (),
    "mpirun -np 2 python docs/examples/three_lines.py": ("--samples", "2000", "--epochs", "1"),
}
#: Or not run, and why. What a program of tools/ is told is parsed here all the same.
NOT_RUN = {
    "make demo": "makes an environment first; what it trains is tried by test_examples.py and on docs/training.md",
    "make test": "runs the tests",
    "make test-cluster": "likewise, on a private Slurm",
    "python tools/results.py --data-dir DIR --epochs 5": "trains for minutes, on data that are not on every machine",
    "python tools/results.py --data-dir DIR --epochs 3": "likewise",
    "python tools/results.py --epochs 3": "trains for minutes",
    "python tools/in_turns.py": "measures for minutes; test_in_turns.py runs short rounds",
    "python tools/speed.py": "measures for half an hour, beside PyTorch",
    "python tools/report_speed.py": "measures for a minute; tests/tools/test_report_speed.py times a small one",
    "python tools/simulated_worlds.py": "measures for minutes; test_simulated_worlds.py makes such worlds",
    "python tools/real_worlds.py": "starts up to 16 ranks; tests/tools/test_real_worlds.py reads what such note",
    "python tools/rendezvous_limit.py": "takes minutes; tests/tools/test_rendezvous_limit.py measures a small world",
    "python -m tools.cluster run": "needs a private Slurm, which tests/cluster have",
    "python -m hpcdl.launch.definitions containers": "writes containers/; test_definitions.py compares",
    "python -m hpcdl.launch.templates jobs": "writes jobs/; test_templates.py compares",
    "python -m hpcdl.runtime": "is what hpcdl starts for each rank, or to read data: all trainings here do",
    "python3 -m venv ": "makes an environment, as tools/environments.py does",
    "python3 --version": "is no command of this project's",
    "python -c pass": "likewise",
    "python3 -c 'import keras": "likewise",
    "ip -br addr": "likewise",
    "apptainer build": "likewise; `python -m tools.cluster image` does so, for tests/cluster",
    "pip install ": "fetches packages; below it is asked whether the extras are there",
    "python3 -m pip install NAME": "fetches packages, in the %post of an image",
    "/project/abc123p/tf/bin/pip install tensorflow": "fetches packages",
    ". ": "changes the shell that reads it",
    "salloc ": "needs a Slurm; tests/cluster trains in an allocation",
    "mpirun -np 16 -H ...": "is what a centre's own script says, beside what to say here instead",
    "srun --mpi=pmi2 shifter": "likewise",
    "IMAGE=/path/to/image.sif sbatch": "tests/cluster/test_jobs.py submits the batch files",
}
#: All that pages show of other programs.
SHOWN = sorted(
    {
        line
        for page in PAGES
        for line in (*commands_of(page), *mentions_of(page))
        if not line.startswith("hpcdl ")
    }
)
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
    beside = " ".join(row[1] for row in rows if row[1].startswith("`"))
    named = set(re.findall(r"\b(\w+)=", beside))
    fitted = inspect.signature(Run.fit).parameters
    assert named == set(fitted) & {field.name for field in dataclasses.fields(WorkloadOptions)}
    for call in re.findall(r"`(tf\.keras\.[\w.]+)\(", text):
        assert callable(functools.reduce(getattr, call.split(".")[1:], tf)), call


@pytest.mark.parametrize("command", PLANNED)
def test_a_training_of_the_page_about_data_is_planned(command, tmp_path):
    words = shlex.split(command)[1:]
    assert "plan of" in run_hpcdl([words[0], "--dry-run", "--oversubscribe", *words[1:]], tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_set_is_written_as_the_page_says_in_the_form_that_hpcdl_reads(name, tmp_path, monkeypatch):
    """With few samples for those that Keras would fetch; test_datasets.py reads such files."""
    (block,) = re.findall(r"```python\n([^`]*np\.savez[^`]*)```", (ROOT / "docs/data.md").read_text())
    (form,) = [form for form in spec_of(name).forms if form.files == (f"{name}.npz",)]
    parts = (np.zeros((3, 2, 2), np.uint8), np.arange(3)), (np.ones((2, 2, 2), np.uint8), np.arange(2))
    monkeypatch.setattr(getattr(tf.keras.datasets, name), "load_data", lambda: parts)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("cifar10", name), {})
    with np.load(form.files[0]) as written:
        assert sorted(written.files) == ["x_test", "x_train", "y_test", "y_train"]
        np.testing.assert_array_equal(written["x_test"], parts[1][0])


def test_every_command_of_a_page_is_run_or_has_a_reason():
    assert [command for command in RUN if command not in SHOWN] == []
    left = [command for command in SHOWN if command not in RUN]
    assert [command for command in left if not command.startswith(tuple(NOT_RUN))] == []
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in left)] == []


@pytest.mark.parametrize(
    "command",
    [
        part
        for line in SHOWN
        if line not in RUN
        for part in line.split(" -- ")
        if re.search(r"\btools[./]", part)
    ],
)
def test_a_program_of_tools_takes_what_a_page_tells_it(command, monkeypatch):
    """By its own parser; what comes after that is not done."""
    words = shlex.split(command)[1:]
    words = words[1:] if words[0] == "-m" else words
    program = importlib.import_module(words[0].replace(".py", "").replace("/", "."))
    if not hasattr(program, "main"):
        program = importlib.import_module(f"{program.__name__}.__main__")
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *given):
        raise InterruptedError(f"{parse(self, *given)}")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(InterruptedError, match="Namespace"):
        program.main(words[1:])


def test_the_extras_that_a_page_installs_are_there():
    shown = {
        extra for line in SHOWN for extras in re.findall(r"\[([\w,]+)\]", line) for extra in extras.split(",")
    }
    assert shown == {"launch", "cpu"}
    there = (
        (ROOT / "pyproject.toml")
        .read_text()
        .partition("[project.optional-dependencies]\n")[2]
        .partition("\n[")[0]
    )
    assert shown <= set(re.findall(r"^(\w+) = ", there, re.MULTILINE))


@pytest.mark.parametrize("command", [command for command in RUN if command.startswith("python ")])
def test_tables_are_printed_from_their_records_as_the_page_says(command):
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=str(ROOT), env=environ_of_script(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (page,) = [page for page in PAGES if command in {*commands_of(page), *mentions_of(page)}]
    tables = [table.strip() for table in done.stdout.split("\n\n") if table.strip()]
    assert [table for table in tables if table not in (ROOT / page).read_text()] == []


@needs_mpirun
def test_a_script_runs_under_mpirun_as_the_page_says(tmp_path):
    ((command, more),) = [(command, more) for command, more in RUN.items() if command.startswith("mpirun ")]
    mpirun, np_flag, count, python, script = shlex.split(command)
    assert (mpirun, np_flag, python) == ("mpirun", "-np", "python")
    ended = under_mpirun(tmp_path, [str(ROOT / script), *more], np=int(count))
    assert ended.status == 0, ended.said
    assert "2 rank(s): test accuracy" in ended.out
