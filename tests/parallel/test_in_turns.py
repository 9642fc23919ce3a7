"""run.fit beside model.fit in one process: the tool that compares them trains by both, and keeps what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bare import environ_of_script
from tests.parallel.launching import NEWEST_ONLY

ROOT = Path(__file__).resolve().parents[2]


@NEWEST_ONLY
def test_both_are_trained_in_turns_and_compared(tmp_path):
    words = ["--workload", "fashion_mnist/fc64", "--rounds", "2", "--steps", "3", "--json", "in-turns.json"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "in_turns.py"), *words],
        env=environ_of_script(),
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "in-turns.json").read_text())
    rates = record["samples_per_second"]
    assert {way: len(of_way) for way, of_way in rates.items()} == {"model.fit": 2, "run.fit": 2}
    ratios = [ours / theirs for ours, theirs in zip(rates["run.fit"], rates["model.fit"])]
    assert min(ratios) <= record["ratio"]["median"] <= max(ratios)
    assert f"run.fit / model.fit {record['ratio']['median']:.3f} (no interval), 2 rounds" in done.stdout
