"""The words of ``hpcdl train``: what they mean, how they travel, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.options import OptionParser, many, name_out_of, retold, take, to_argv
from hpcdl.common.words import (
    LaunchOptions,
    RunSettings,
    TrainCommand,
    WorkloadOptions,
    parse_train,
    target_kind,
    train_argv,
    train_words,
)

WORKLOAD = "fashion_mnist/cnn_dropout"

#: A value that is not the default, for every field.
SETTINGS = RunSettings(
    strategy="hybrid",
    replicas_per_process=2,
    seed=0,
    run_dir="runs/a b=c",
    fresh=True,
    checkpoint_every="10min,1epoch",
    end_time=1795513200.123456,
    precision="mixed_bfloat16",
    xla=True,
    controller="gloo",
)
LAUNCH = LaunchOptions(np=4, launcher="gloo", oversubscribe=True, restarts=3, dry_run=True, log_dir="-logs")
OPTIONS = WorkloadOptions(
    epochs=2,
    per_replica_batch_size=64,
    reference_batch_size=128,
    learning_rate=1e-05,
    lr_scaling="sqrt",
    warmup_epochs=0.5,
    scale_epochs=True,
    data_dir="/data/é",
)
COMMANDS = [
    TrainCommand(RunSettings(), LaunchOptions(), WorkloadOptions(), "train.py"),
    TrainCommand(SETTINGS, LAUNCH, WorkloadOptions(), "dir/my script.py", ("--np", "9", "--", "-h", "")),
    TrainCommand(SETTINGS, LAUNCH, OPTIONS, WORKLOAD),
    TrainCommand(
        SETTINGS,
        LAUNCH,
        replace(
            OPTIONS, per_replica_batch_size=None, global_batch_size=7, data="my.data:load", data_dir=None
        ),
        "my.models:build",
    ),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.target)
def test_a_command_survives_the_way_through_argv(command: TrainCommand) -> None:
    assert parse_train(train_argv(command)) == command


@pytest.mark.parametrize("part", [SETTINGS, LAUNCH, replace(OPTIONS, global_batch_size=None)])
def test_the_round_trips_cover_every_field(part: Any) -> None:
    unchanged = {
        field.name for field in dataclasses.fields(part) if getattr(part, field.name) == field.default
    }
    assert unchanged <= {"global_batch_size", "data"}


def test_the_default_command_is_its_target() -> None:
    assert train_argv(COMMANDS[0]) == ["train.py"]


@pytest.mark.parametrize("settings", [RunSettings(), SETTINGS])
def test_settings_survive_the_way_through_the_environment(settings: RunSettings) -> None:
    environ = {"HOME": "/home/user", "HPCDL_RANK": "1", **settings.to_environ()}
    assert RunSettings.from_environ(environ) == settings


def test_settings_travel_under_their_own_names() -> None:
    assert SETTINGS.to_environ() == {
        "HPCDL_STRATEGY": "hybrid",
        "HPCDL_REPLICAS_PER_PROCESS": "2",
        "HPCDL_SEED": "0",
        "HPCDL_RUN_DIR": "runs/a b=c",
        "HPCDL_FRESH": "1",
        "HPCDL_CHECKPOINT_EVERY": "10min,1epoch",
        "HPCDL_END_TIME": "1795513200.123456",
        "HPCDL_CONTROLLER": "gloo",
        "HPCDL_PRECISION": "mixed_bfloat16",
        "HPCDL_XLA": "1",
    }
    assert RunSettings().to_environ() == {}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert RunSettings.from_environ({"HPCDL_SEED": "", "HPCDL_FRESH": "0"}) == RunSettings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HPCDL_STRATEGY", "hybird"),
        ("HPCDL_REPLICAS_PER_PROCESS", "0"),
        ("HPCDL_SEED", "-1"),
        ("HPCDL_SEED", "1.5"),
        ("HPCDL_SEED", "4294967296"),
        ("HPCDL_FRESH", "yes"),
        ("HPCDL_CHECKPOINT_EVERY", "often"),
        ("HPCDL_END_TIME", "tomorrow"),
        ("HPCDL_END_TIME", "nan"),
        ("HPCDL_CONTROLLER", "nccl"),
    ],
)
def test_a_malformed_variable_is_named_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        RunSettings.from_environ({variable: value})
    assert variable in str(caught.value)
    assert repr(value).strip("'") in str(caught.value)


def test_of_an_end_that_is_no_time_a_way_to_write_one_is_proposed() -> None:
    with pytest.raises(BadInput, match=r"received 'tomorrow'; pass e\.g\. \$\(date -d 18:00 \+%s\)"):
        parse_train(["--end-time", "tomorrow", "train.py"])


def test_after_a_script_everything_is_the_scripts() -> None:
    command = parse_train(
        ["--np", "2", "train.py", "--np", "3", "--help", "--batch-size", "9", "other.py", "--"]
    )
    assert command.launch.np == 2
    assert command.script_args == ("--np", "3", "--help", "--batch-size", "9", "other.py", "--")


@pytest.mark.parametrize("target", [WORKLOAD, "my.models:build"])
def test_options_are_hpcdls_on_both_sides_of_a_workload(target: str) -> None:
    data = [] if target == WORKLOAD else ["--data", "my.models:data"]
    command = parse_train(
        ["-n2", "--fresh", target, "--epochs=3", "--strategy", "horovod", "--dry-run", *data]
    )
    assert (command.launch.np, command.settings.fresh, command.launch.dry_run) == (2, True, True)
    assert (command.options.epochs, command.settings.strategy) == (3, "horovod")
    assert command.script_args == ()


@pytest.mark.parametrize("words", [["-n", "2"], ["-n2"], ["--np", "2"], ["--np=2"]])
def test_the_value_of_an_option_is_never_taken_for_the_target(words: List[str]) -> None:
    command = parse_train([*words, "--run-dir", "a.py", "train.py"])
    assert (command.launch.np, command.settings.run_dir, command.target) == (2, "a.py", "train.py")


def test_of_an_option_given_twice_the_later_one_holds() -> None:
    assert parse_train(["--epochs", "1", WORKLOAD, "--epochs", "2"]).options.epochs == 2


def test_a_double_dash_ends_the_options() -> None:
    assert parse_train(["--np", "2", "--", "train.py", "-x"]).script_args == ("-x",)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("train.py", "script"),
        ("/home/user/my dir/train.py", "script"),
        (WORKLOAD, "workload"),
        ("synthetic/resnet50", "workload"),
        ("build:model", "function"),
        ("my.models:nets.build", "function"),
    ],
)
def test_the_form_of_a_target_tells_its_kind(target: str, kind: str) -> None:
    assert target_kind(target) == kind
    data = ["--data=m:data"] if kind == "function" else []
    assert parse_train([*data, target]).target_kind == kind


@pytest.mark.parametrize(
    "target", ["train", "train.sh", "a/b/c", "/abs/path", "../x", "1a:b", "a:", ":b", "", "-"]
)
def test_a_target_of_no_known_form_is_refused(target: str) -> None:
    with pytest.raises(BadInput, match="must be a script"):
        target_kind(target)


REFUSED: Dict[str, List[str]] = {
    "received none": ["--np", "2"],
    "needs a TARGET": [],
    "received 'cnn2'; did you mean mnist/cnn2, fashion_mnist/cnn2": ["cnn2"],
    "did you mean --epochs": [WORKLOAD, "--epoch", "3"],
    "did you mean --replicas-per-process": ["--replica-per-process=2", "train.py"],
    "unknown option '--np2'": ["--np2", "3", "train.py"],
    "did you mean hybrid": ["--strategy", "hybird", "train.py"],
    "unknown --launcher 'slurm'": ["--launcher", "slurm", "train.py"],
    "unknown --lr-scaling 'cubic'": [WORKLOAD, "--lr-scaling", "cubic"],
    "unknown --precision 'fp16'": [WORKLOAD, "--precision", "fp16"],
    "--np must be a whole number >= 1; received 0": ["--np", "0", "train.py"],
    "--np must be a whole number >= 1; received -1": ["-n", "-1", "train.py"],
    "--restarts must be": ["--restarts", "x", "train.py"],
    "--learning-rate must be a number > 0; received '-0.1'": [WORKLOAD, "--learning-rate", "-0.1"],
    "--warmup-epochs must be a number >= 0": [WORKLOAD, "--warmup-epochs", "inf"],
    "--checkpoint-every must be": ["--checkpoint-every", "10", "train.py"],
    "--run-dir must name a folder": ["--run-dir=", "train.py"],
    "expected one argument": [WORKLOAD, "--epochs"],
    "ignored explicit argument": ["--fresh=1", "train.py"],
    "takes options only here; received 'fc64'": [WORKLOAD, "fc64"],
    "received --epochs, --scale-epochs before train.py": ["--epochs", "2", "--scale-epochs", "train.py"],
    "received both (32 and 64)": [WORKLOAD, "--per-replica-batch-size=32", "--global-batch-size=64"],
    "use --per-replica-batch-size for one": ["--batch-size", "32", "train.py"],
    "pass e.g. --data my.models:data": ["my.models:build"],
    "--data must be module:function; received 'my_data.py'": ["m:build", "--data", "my_data.py"],
    "a workload has its own data; received --data m:data": [WORKLOAD, "--data", "m:data"],
    "--data-dir is for the ready data sets; received d": ["synthetic/resnet50", "--data-dir", "d"],
    "received d with m:build": ["m:build", "--data", "m:data", "--data-dir", "d"],
    "unknown workload 'mnist/fc63'": ["mnist/fc63"],
    "received --data before train.py": ["--data", "m:data", "train.py"],
    "received --batch_size=32": [WORKLOAD, "--batch_size=32"],
}


@pytest.mark.parametrize("message", sorted(REFUSED))
def test_bad_input_is_one_line_with_the_values_and_the_way_out(message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_train(REFUSED[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--np", "2", "-h"], [WORKLOAD, "--help"]])
def test_help_shows_every_option_the_forms_of_a_target_and_examples(
    argv: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        parse_train(argv)
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: hpcdl train [OPTIONS] TARGET ...")
    for part in (RunSettings, LaunchOptions, WorkloadOptions):
        for field in dataclasses.fields(part):
            assert "--" + field.name.replace("_", "-") in text
    for words in ("script.py", "data/network", "module:function", "examples:"):
        assert words in text


def test_messages_name_the_program_that_the_user_called() -> None:
    with pytest.raises(BadInput, match="see hpcdl submit --help"):
        parse_train(["--nope", "train.py"], prog="hpcdl submit")


def test_the_examples_of_the_help_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_train(["--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        prog, subcommand, *words = example.split()
        assert (prog, subcommand) == ("hpcdl", "train")
        assert parse_train(words).launch.np


def test_an_option_that_may_be_repeated_is_read_and_written_as_often_as_it_stands() -> None:
    @dataclass(frozen=True)
    class Many:
        word: Tuple[str, ...] = many("W", "take W", name_out_of(("a", "b")))

    parser = OptionParser("p", "p", "", "", {"g": Many})
    values = take(Many, parser.parse(["--word", "b", "--word=a"]))
    assert values.word == ("b", "a")
    assert to_argv(values) == ["--word=b", "--word=a"]
    assert take(Many, parser.parse([])) == Many()


@pytest.mark.parametrize("words", [["--restarts", "x"], ["--restarts=x"], ["-n2", "--restarts", "x", "a.py"]])
def test_what_a_command_does_not_take_is_no_part_of_its_help_and_refused_with_the_way_out(
    words: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Here(LaunchOptions):
        refused = {name: ("it runs once", "leave it out") for name in ("restarts", "dry_run")}

    parser = OptionParser("p", "p", "", "", {"g": Here})
    assert parser.split(words)[1] == ("a.py" if "a.py" in words else None)
    with pytest.raises(BadInput, match="^it runs once; received --restarts x; leave it out$"):
        parser.parse([word for word in words if word != "a.py"])
    with pytest.raises(BadInput, match="^it runs once; received --dry-run; leave it out$"):
        parser.parse(["--dry-run"])
    with pytest.raises(BadInput, match="^unknown option '--restart'; see p --help$"):
        parser.parse(["--restart"])
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    shown = capsys.readouterr().out
    assert "--log-dir" in shown
    assert "--restarts" not in shown
    assert take(LaunchOptions, parser.parse(["-n2"])) == LaunchOptions(np=2)


def test_an_option_may_be_told_otherwise_where_it_is_for_another_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    @dataclass(frozen=True)
    class Here(LaunchOptions):
        np: Optional[int] = retold(LaunchOptions, "np", "count to N")

    parser = OptionParser("p", "p", "", "", {"g": Here})
    assert parser.parse(["-n3"]) == {"np": 3}
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    assert "count to N" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "word", "is_known"),
    [
        ("add_argument('--np')", "--np=3", True),
        ("import numpy as np", "--np", False),
        ("add_argument('--num-layers', '-l')", "-n", False),
        ("add_argument('-n', type=int)", "-n4", True),
        ("class Options:\n    log_dir: str", "--log-dir", True),
        ("DEFINE_integer('restarts', 0)", "--restarts", True),
        ("parser.add_argument('-name')", "-name", True),
        ("", "--epochs", True),
        ('"""Runs hpcdl train --np 2 train.py"""\nprint()', "--np", False),
        ('# A script.\n"""Takes --np N."""\nadd_argument("--np")', "--np", True),
        ('"""Usage: train.py [--np N]"""\nfrom docopt import docopt', "--np", True),
        ('"""Takes --np N."""\nprint "of Python 2"', "--np", True),
    ],
)
def test_behind_a_script_an_option_of_starting_is_the_scripts_where_it_knows_it(
    text, word, is_known, tmp_path
):
    script = tmp_path / "train.py"
    script.write_text(text)
    if is_known:
        assert parse_train([str(script), word]).script_args == (word,)
    else:
        with pytest.raises(BadInput, match="stand before TARGET; received " + word):
            parse_train([str(script), word])
    marked = parse_train(["--", str(script), word])
    assert marked.script_args == (word,)
    assert parse_train(train_argv(marked)) == marked
    assert train_words(marked) == [str(script), word]
