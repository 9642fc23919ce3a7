"""What is to be trained is looked for without TensorFlow, and without running anything of the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Dict

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.targets import check_module, check_target
from hpcdl.common.words import parse_train

WORKLOAD = "fashion_mnist/fc64"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_module.py", "my_pack/__init__.py", "train.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("raise SystemExit('this was run')")
    Path("data").mkdir()


def check(*words: str, **environ: str) -> None:
    check_target(parse_train(list(words)), environ)


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["train.py"], {}),
        (["my_module:build", "--data", "my_pack.parts:data"], {}),
        (["os.path:join", "--data", "sys:exit"], {}),
        ([WORKLOAD, "--data-dir", "data"], {"HPCDL_DATA": "gone"}),
        ([WORKLOAD], {"HPCDL_DATA": ""}),
        (["synthetic/resnet50"], {"HPCDL_DATA": "gone"}),
    ],
)
def test_what_is_there_is_let_through_and_not_run(words: list, environ: Dict[str, str]) -> None:
    check(*words, **environ)
    assert not {"my_module", "my_pack"} & set(sys.modules)


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        (["trian.py"], {}, "must be a script that exists; received trian.py"),
        (["data.py"], {}, "received data.py"),
        (["my_modul:build", "--data", "my_module:data"], {}, "TARGET .* no module 'my_modul' in .*did you mean my_mod"),
        (["my_module:build", "--data", "my_pac.parts:data"], {}, "--data .* no module 'my_pac' .*did you mean my_pack"),
        ([WORKLOAD, "--data-dir", "gone/"], {}, "--data-dir gone is no folder; create it .* files of fashion_mnist"),
        ([WORKLOAD, "--data-dir", "train.py"], {}, "--data-dir train.py is no folder"),
        ([WORKLOAD, "--data-dir", "train.py/data"], {}, "--data-dir train.py/data is no folder"),
        ([WORKLOAD], {"HPCDL_DATA": "gone"}, r"\$HPCDL_DATA gone is no folder"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(words: list, environ: Dict[str, str], said: str) -> None:
    Path("data.py").mkdir()
    with pytest.raises(BadInput, match=said):
        check(*words, **environ)


def test_a_folder_that_cannot_be_looked_at_is_left_to_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> None:
        raise PermissionError(path)

    command = parse_train([WORKLOAD, "--data-dir", "gone"])
    monkeypatch.setattr(os, "stat", denied)
    check_target(command, {})


def test_a_module_that_is_loaded_and_was_not_found_in_a_place_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    check_module("TARGET", "made_up:build")
