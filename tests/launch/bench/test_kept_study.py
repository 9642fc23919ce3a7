"""The study that is kept in docs/benchmarks: its records can be read, and README tells what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hpcdl.common.errors import EXIT_DONE
from hpcdl.launch.cli import main

ROOT = Path(__file__).resolve().parents[3]
STUDY = ROOT / "docs" / "benchmarks" / "two-cores" / "scaling"


def percent(found):
    is_known = found["low"] != found["high"]  # the baseline is 100 % of itself
    interval = f" ({100 * found['low']:.0f} to {100 * found['high']:.0f})" if is_known else ""
    return f"{100 * found['median']:.0f} %{interval}"


def cells(row):
    planned = row["planned"]
    return [
        planned["scaling"],
        str(planned["num_ranks"]),
        str(row["per_replica_batch_size"]),
        f"{row['rate']['median']:.0f}",
        f"{row['speed_up']['median']:.2f}",
        percent(row["efficiency"]),
        percent(row["ceiling"]) if row["ceiling"] else "-",
    ]


def test_readme_shows_the_figures_of_the_records(capsys):
    assert main(["bench", "report", str(STUDY), "--format", "json"]) == EXIT_DONE
    (found,) = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    lines = (ROOT / "README.md").read_text().splitlines()
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert shown[2:] == [cells(row) for row in found["rows"]]


def test_no_record_names_a_folder_of_the_machine_that_made_it():
    texts = {path: path.read_text() for path in STUDY.rglob("*") if path.is_file()}
    assert len(texts) > 100
    assert [
        path.name for path, text in texts.items() if re.search(r'[" =]/(home|root|tmp|work)/', text)
    ] == []


def test_the_docs_show_how_unsure_a_prediction_from_two_counts_is(capsys):
    assert main(["bench", "predict", str(STUDY), "--num-replicas", "27360"]) == EXIT_DONE
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["27360"])
    rate, low, high = (float(row[i]) / 1e6 for i in (1, 2, 4))
    text = " ".join((ROOT / "docs" / "scaling-model.md").read_text().split())
    assert f"gives {rate:.1f} million samples/s, and a range from {low:.2f} to {high:.0f} million" in text
