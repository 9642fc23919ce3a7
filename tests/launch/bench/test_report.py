"""Reports, comparisons and predictions: every format tells the same, and what may mislead is said or refused."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest

from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED
from hpcdl.launch.cli import main
from tests.launch.bench.studies import STEPS, write_measurement, write_run, write_study

NINE_ROUNDS = (1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.0, 1.01, 1.0)


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "first", slowness=NINE_ROUNDS, versions={"hpcdl": "1"})


def run(capsys, *words):
    status = main(["bench", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_every_format_has_the_same_figures(study, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    status, said, _ = run(capsys, "report", study, "--output", tmp_path / "report")
    assert status == EXIT_DONE
    assert "scaling.html" in said
    text = {path.name: path.read_text() for path in (tmp_path / "report").iterdir() if path.suffix != ".png"}
    one, two = csv.DictReader(io.StringIO(text["scaling.csv"]))
    assert (one["samples/s"], two["samples/s"], two["speed-up"], two["efficiency %"]) == (
        "80",
        "128",
        "1.60",
        "80.0",
    )
    assert (two["input wait ms"], two["imbalance ms"], two["exchange ms"]) == ("4.0", "5.0", "15.0")
    assert two["remark"] == "CPU"
    for name in ("scaling.md", "scaling.tex", "scaling.html"):
        cells = re.split(r"[|&<>\\]", text[name])
        assert {"80", "128", "1.60", "80.0"} <= {cell.strip() for cell in cells}, name
    (found,) = json.loads(text["scaling.json"])
    assert found["rows"][1]["efficiency"]["median"] == pytest.approx(0.8)
    assert r"\toprule" in text["scaling.tex"]
    assert r"efficiency \%" in text["scaling.tex"]


def test_what_gpus_did_has_columns_where_it_is_known(tmp_path, capsys):
    known = {"gpu_use_percent": 87.5, "memory": {"host_peak_bytes": 2e9, "gpu_peak_bytes": 30e9}}
    study = write_study(tmp_path / "gpus", further=known)
    without = write_study(
        tmp_path / "none", further={"gpu_use_percent": None, "memory": {"gpu_peak_bytes": None}}
    )
    _, said, _ = run(capsys, "report", study, "--format", "csv")
    row = next(csv.DictReader(io.StringIO(said)))
    assert (row["GPU use %"], row["memory GB"], row["GPU memory GB"]) == ("88", "2.00", "30.00")
    _, said, _ = run(capsys, "report", study, "--format", "md")
    assert "| GPU use % |" in said
    _, said, _ = run(capsys, "report", without, "--format", "md")
    assert "GPU" not in said


def test_the_page_needs_nothing_else_and_its_pictures_are_well_formed(study, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run(capsys, "report", study, "--output", tmp_path / "report")
    page = (tmp_path / "report" / "scaling.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|[\w./]+\.(png|svg|css|js))""", page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4
    ids = []
    for picture in pictures:
        root = ET.fromstring(picture)
        own = [element.get("id") for element in root.iter() if element.get("id")]
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', picture))
        assert {a or b for a, b in used} <= set(own)
        ids += own
    assert len(ids) == len(set(ids))
    for name in ("speed-up", "efficiency", "throughput", "breakdown"):
        ET.parse(tmp_path / "report" / f"{name}.svg")
        assert (tmp_path / "report" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_the_text_says_method_cause_and_recommendation(study, capsys):
    _, said, _ = run(capsys, "report", study)
    assert "9 rounds" in said
    assert "most of it to the exchange of gradients: 12.0 %" in said
    assert "Recommended: 1 node, 2 replicas" in said
    _, said, _ = run(capsys, "report", study, "--threshold", "0.85")
    assert "Recommended: 1 node, 1 replica:" in said


def test_a_campaign_has_its_price_in_node_hours(study, capsys):
    _, said, _ = run(capsys, "report", study, "--campaign-epochs", "90")
    # 60000 samples at 128 samples/s on one node, 90 times.
    assert "90 epochs take 11.7 node-hours" in said
    assert "| node-hours for 90 epochs |" in said
    assert "| 11.72 |" in said


def test_runs_are_compared_by_the_time_to_their_target_and_by_throughput(study, tmp_path, capsys):
    runs = [
        write_run(tmp_path / "one", 1, [0.5, 0.8, 0.91, 0.92], 10.0, 100.0),
        write_run(tmp_path / "four", 4, [0.4, 0.6, 0.7, 0.89, 0.90], 2.5, 400.0),
        write_run(tmp_path / "eight", 8, [0.4, 0.5], 1.25, 800.0),
    ]
    words = ("--target", "val_accuracy=0.9", "--format", "csv")
    status, said, _ = run(capsys, "report", *runs, *words)
    assert status == EXIT_DONE
    one, four, eight = csv.DictReader(io.StringIO(said))
    time, rate = "time-to-target efficiency %", "throughput efficiency %"
    assert (one["epochs to target"], one["s to target"], one[time]) == ("3", "30.0", "100.0")
    assert (four["epochs to target"], four[rate], four[time]) == ("5", "100.0", "60.0")
    assert (eight["reached it"], eight["epochs to target"], eight[time]) == ("0", "-", "-")
    _, said, _ = run(capsys, "report", study, *runs, "--target", "val_accuracy=0.9")
    assert "Time to val_accuracy >= 0.9" in said
    assert "of a step are lost" in said
    status, _, error = run(capsys, "report", *runs, "--target", "val_loss=0.1")
    assert (status, "they have val_accuracy" in error) == (EXIT_BAD_INPUT, True)
    assert run(capsys, "report", *runs)[0] == EXIT_BAD_INPUT


def test_a_record_of_sums_is_drawn(study, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    seconds = {"mpi": {"1024": [1e-5], "1048576": [1e-3]}, "horovod": {"1024": [1e-3], "1048576": [2e-3]}}
    path = tmp_path / "sums.json"
    path.write_text(
        json.dumps({"schema_version": 1, "kind": "allreduce", "num_ranks": 2, "seconds": seconds})
    )
    assert run(capsys, "report", study, path, "--output", tmp_path / "report")[0] == EXIT_DONE
    assert "1 MiB" in (tmp_path / "report" / "allreduce.svg").read_text()
    assert "![allreduce](allreduce.svg)" in (tmp_path / "report" / "scaling.md").read_text()
    path.write_text('{"kind": "allreduce", "schema_version": 2}')
    status, _, error = run(capsys, "report", path)
    assert (status, "schema 2" in error) == (EXIT_BAD_INPUT, True)


@pytest.mark.parametrize(
    "words",
    [("--help",), ("--site", "x", "--help"), *((part, "--help") for part in ("run", "report", "allreduce"))],
)
def test_every_part_has_a_help(words, capsys):
    try:
        status = main(["bench", *words])
    except SystemExit as end:
        status = end.code
    assert status == EXIT_DONE
    assert "hpcdl bench" in capsys.readouterr().out


def test_one_point_gives_no_curve_and_few_rounds_no_evidence(tmp_path, capsys):
    only = write_study(tmp_path / "only", {"weak-1": STEPS["weak-1"]}, slowness=(1.0,))
    status, said, _ = run(capsys, "report", only)
    assert status == EXIT_DONE
    assert "One point only" in said
    assert "no evidence" in said
    assert "Recommended" not in said


def test_studies_of_different_software_are_kept_apart(study, tmp_path, capsys):
    other = write_study(tmp_path / "second", versions={"hpcdl": "2"})
    status, _, error = run(capsys, "report", study, other)
    assert status == EXIT_BAD_INPUT
    assert "hpcdl (1, 2)" in error
    status, said, _ = run(capsys, "report", study, other, "--force")
    assert status == EXIT_DONE
    assert "| first | weak | 1 |" in said
    assert "| second | weak | 1 |" in said


def test_code_or_image_that_changed_within_a_study_is_refused(study, capsys):
    later = {"source": {"commit": "3f" * 20, "is_changed": True}}
    write_measurement(study / "round-003" / "weak-1", STEPS["weak-1"], 1.0, versions={"hpcdl": "1"})
    assert run(capsys, "report", study)[0] == EXIT_DONE
    for number, source in ((1, {"source": {"commit": "aa" * 20, "is_changed": False}}), (2, later)):
        folder = study / f"round-{number:03d}" / "weak-2"
        write_measurement(folder, STEPS["weak-2"], 1.0, versions={"hpcdl": "1"}, further=source)
    status, _, error = run(capsys, "report", study)
    assert status == EXIT_BAD_INPUT
    assert "commit (aaaaaaaaaaaa, 3f3f3f3f3f3f and changes)" in error
    assert run(capsys, "report", study, "--force")[0] == EXIT_DONE


@pytest.mark.parametrize(
    ("factor", "status", "verdict"),
    [(1.3, EXIT_FAILED, "slower"), (0.7, EXIT_DONE, "faster"), (1.0, EXIT_DONE, "the same")],
)
def test_a_comparison_says_whether_it_got_slower(study, tmp_path, capsys, factor, status, verdict):
    after = write_study(tmp_path / "after", slowness=[factor * s for s in NINE_ROUNDS])
    found, said, _ = run(capsys, "compare", study, after, "--margin", "3")
    assert found == status
    assert [line.split()[-1] for line in said.splitlines()] == [verdict.split()[-1]] * 2


def test_few_rounds_are_no_verdict(tmp_path, capsys):
    few = [write_study(tmp_path / name, slowness=(factor,) * 3) for name, factor in (("a", 1.0), ("b", 2.0))]
    status, said, _ = run(capsys, "compare", *few)
    assert status == EXIT_DONE
    assert "too few rounds" in said


def test_what_has_no_point_in_common_is_not_compared(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", target="another")
    assert run(capsys, "compare", study, other)[0] == EXIT_BAD_INPUT


def test_a_prediction_says_its_range_and_its_error_on_what_it_was_not_given(tmp_path, capsys):
    table = tmp_path / "measured.csv"
    table.write_text("replicas,samples_per_second\n1,100\n2,195\n4,380\n8,745\n")
    status, said, _ = run(capsys, "predict", "--table", table, "--num-replicas", "16,512")
    assert status == EXIT_DONE
    assert "fitted to 1, 2 only, its error at the others is 4: " in said
    assert "extrapolated, more than 8 times what was measured: 512" in said
    row = next(line.split() for line in said.splitlines() if line.split()[:1] == ["16"])
    assert float(row[2]) < float(row[1]) < float(row[4])


def test_a_study_predicts_too(study, capsys):
    status, said, _ = run(capsys, "predict", study, "--num-replicas", "4")
    assert status == EXIT_DONE
    assert "fitted to 1, 2 replicas" in said


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--num-replicas", "4"),
        ("predict", "--table", "{missing}", "--num-replicas", "4"),
        ("predict", "{study}", "--num-replicas", "four"),
        ("report", "{missing}"),
        ("report", "{study}", "--format", "pdf"),
        ("reprot", "{study}"),
        ("allreduce", "--bytes", "3"),
    ],
)
def test_bad_words_are_one_line_and_status_2(study, tmp_path, capsys, words):
    names = {"missing": str(tmp_path / "missing"), "study": str(study)}
    status, said, error = run(capsys, *[word.format(**names) for word in words])
    assert status == EXIT_BAD_INPUT
    assert said == ""
    assert len(error.splitlines()) == 1
