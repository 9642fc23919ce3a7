"""Two ways to train, in turns: the tool that compares them trains by both, and keeps what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bare import environ_of_script
from tests.parallel.launching import NEWEST_ONLY

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--workload", "fashion_mnist/fc64", "--rounds", "2", "--steps", "3", "--json", "in-turns.json"]


def start(words, folder):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "in_turns.py"), *words],
        env=environ_of_script(),
        cwd=str(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@NEWEST_ONLY
@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (["keras"], "run.fit", "model.fit"),
        (["input", "--np", "2"], "from the data", "one batch again and again"),
    ],
)
def test_both_are_trained_in_turns_and_compared(words, first, second, tmp_path):
    done = start([*words, *SHORT], tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "in-turns.json").read_text())
    rates = record["samples_per_second"]
    assert {way: len(of_way) for way, of_way in rates.items()} == {first: 2, second: 2}
    ratios = [ours / theirs for ours, theirs in zip(rates[first], rates[second])]
    assert min(ratios) <= record["ratio"]["median"] <= max(ratios)
    assert f"{first} / {second} {record['ratio']['median']:.3f} (no interval), 2 rounds" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["in-turns.json"]


@NEWEST_ONLY
def test_what_cannot_be_compared_is_told_in_the_words_of_the_run(tmp_path):
    done = start(["input", "--workload", "fashion_mnist/fc46"], tmp_path)
    assert done.returncode == 2
    assert "unknown workload 'fashion_mnist/fc46'" in done.stderr
    assert list(tmp_path.iterdir()) == []
