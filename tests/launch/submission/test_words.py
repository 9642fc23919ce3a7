"""The words of ``hpcdl submit``: sbatch's own forms, and what hpcdl keeps for itself."""

from __future__ import annotations

from typing import List, Optional

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.words import LaunchOptions, RunSettings
from hpcdl.launch.amounts import memory_mb_of, minutes_of
from hpcdl.launch.submission.words import parse_submit


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30", 30),
        ("30:01", 31),
        ("8:00:00", 480),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:30", 2191),
    ],
)
def test_all_forms_of_a_time_limit_become_whole_minutes(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["0", "0:00:00", "8h", "1:2:3:4", "", "-5", "1-"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--time must be minutes"):
        minutes_of(text)


@pytest.mark.parametrize(
    ("text", "megabytes"), [("120G", 122880), ("4000M", 4000), ("4000", 4000), ("2TB", 2097152), ("0", None)]
)
def test_memory_is_read_as_sbatch_reads_it(text: str, megabytes: Optional[int]) -> None:
    assert memory_mb_of(text) == megabytes


def test_options_of_the_run_travel_to_the_ranks_and_those_of_the_job_do_not() -> None:
    command = parse_submit(
        ["-N", "2", "-n", "8", "--launcher", "mpi", "--strategy", "horovod", "--seed=3", "a.py", "-N", "9"]
    )
    assert (command.job.nodes, command.job.np, command.place.launcher) == (2, 8, "mpi")
    assert command.train.settings == RunSettings(strategy="horovod", seed=3)
    assert command.train.launch == LaunchOptions()
    assert command.train.script_args == ("-N", "9")


def test_options_may_follow_a_workload() -> None:
    command = parse_submit(["fashion_mnist/fc64", "--epochs", "2", "-N", "3"])
    assert (command.train.options.epochs, command.job.nodes) == (2, 3)


def test_options_for_sbatch_are_passed_on_as_they_are() -> None:
    command = parse_submit(["--sbatch-arg=--licenses=scratch", "--sbatch-arg=--spread-job", "a.py"])
    assert command.job.sbatch_arg == ("--licenses=scratch", "--spread-job")


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("--nodes=3", "use --nodes"),
        ("--gres=gpu:4", "use --gpus-per-node"),
        ("--output=x", "use hpcdl logs"),
        ("--part=RM", "use --partition"),
        ("--ntasks-per-gpu=1", "use --np"),
        ("--tasks-per-node=3", "use --np"),
        ("--export-file=x", "nothing: it is hpcdl's"),
        ("--exc", "use --exclusive"),
        ("--signal=USR1@9", "nothing: it is hpcdl's"),
        ("--wrap=x", "nothing: it is hpcdl's"),
        ("-N3", "must be one long option of sbatch"),
        ("--licenses=a\nb", "must be one long option of sbatch"),
    ],
)
def test_what_hpcdl_sets_itself_is_not_passed_on(argument: str, cure: str) -> None:
    with pytest.raises(BadInput, match=cure):
        parse_submit([f"--sbatch-arg={argument}", "a.py"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "hpcdl submit needs a TARGET"),
        (["--nodez", "3", "a.py"], "did you mean --nodes"),
        (["-N", "0", "a.py"], "--nodes must be a whole number >= 1"),
        (["--job-name", "two\nlines", "a.py"], "--job-name must be one line of text"),
        (["--launcher", "ssh", "a.py"], "unknown --launcher 'ssh'"),
        (["--controller", "mpi", "a.py"], "received --controller mpi; pass --launcher mpi"),
        (["--executor", "pbs", "a.py"], "unknown --executor 'pbs'"),
        (["--epochs", "2", "a.py"], "a script takes no options of workloads"),
    ],
)
def test_wrong_words_are_refused_in_one_line(argv: List[str], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_submit(argv)
    assert words in str(caught.value)
