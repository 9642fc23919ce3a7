"""Reports, comparisons and predictions: every format tells the same, and what may mislead is said or refused."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest

from hpcdl.common.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, BadInput
from hpcdl.launch.bench.compare import EXIT_UNDECIDED
from hpcdl.launch.bench.convergence import Target, parse_target
from hpcdl.launch.bench.plots import draw
from hpcdl.launch.bench.study import read_study
from hpcdl.launch.bench.tables import Table, to_latex
from hpcdl.launch.cli import main
from tests.launch.bench.studies import STEPS, write_measurement, write_run, write_study

GIVEN = ("--step-ms", "4", "--megabytes", "1", "--gb-per-s", "1")
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
    names = ("samples/s", "speed-up", "efficiency %", "input wait ms", "imbalance ms", "exchange ms")
    assert [float(two[name]) for name in names] == pytest.approx([128, 1.6, 80, 4, 5, 15])
    assert float(two["samples/s low"]) == pytest.approx(128 / 1.01)
    assert float(two["samples/s"]) <= float(two["samples/s high"])
    assert (one["exchange ms"], one["exchange ms low"]) == ("", "")
    assert two["remark"] == "CPU"
    for name in ("scaling.md", "scaling.tex", "scaling.html"):
        cells = [cell.strip() for cell in re.split(r"[|&<>\\]", text[name])]
        assert {"80.0", "1.60"} <= set(cells), name
        starts = {cell.partition(" (")[0] for cell in cells if cell.endswith(")")}
        assert {"80.0", "128", "15.0"} <= starts, name
    (found,) = json.loads(text["scaling.json"])
    assert found["rows"][1]["efficiency"]["median"] == pytest.approx(0.8)
    assert r"\toprule" in text["scaling.tex"]
    assert r"efficiency \%" in text["scaling.tex"]


def test_a_slow_model_keeps_its_digits(tmp_path, capsys):
    steps = {"weak-1": [[20.0]], "weak-2": [[26.0, 26.0]]}  # 0.4 samples/s on one replica
    study = write_study(tmp_path / "slow", steps, slowness=NINE_ROUNDS)
    _, said, _ = run(capsys, "report", study)
    assert "| 0.400 (0.396 to 0.404) |" in said
    _, said, _ = run(capsys, "predict", study, "--num-replicas", "4")
    row = next(line.split() for line in said.splitlines() if line.split()[:1] == ["4"])
    assert float(row[1]) == pytest.approx(32 / 32, abs=0.01)  # 20 s, 26 s, 32 s: six more for each doubling


def test_what_latex_takes_for_commands_is_written_so_that_it_does_not():
    table = Table(("50 %", "a_b"), ((r"C:\~x^{2}", "#1 & $2"),))
    body = to_latex(table)
    assert r"50 \% & a\_b \\" in body
    assert r"C:\textbackslash{}\textasciitilde{}x\textasciicircum{}\{2\} & \#1 \& \$2 \\" in body


def test_what_gpus_did_has_columns_where_it_is_known(tmp_path, capsys):
    known = {"gpu_use_percent": 87.5, "memory": {"host_peak_bytes": 2e9, "gpu_peak_bytes": 30e9}}
    study = write_study(tmp_path / "gpus", further=known)
    without = write_study(
        tmp_path / "none", further={"gpu_use_percent": None, "memory": {"gpu_peak_bytes": None}}
    )
    _, said, _ = run(capsys, "report", study, "--format", "csv")
    row = next(csv.DictReader(io.StringIO(said)))
    names = ("GPU use %", "memory GB", "GPU memory GB")
    assert [float(row[name]) for name in names] == pytest.approx([87.5, 2, 30])
    _, said, _ = run(capsys, "report", study, "--format", "md")
    assert "| GPU use % |" in said
    _, said, _ = run(capsys, "report", without, "--format", "md")
    assert "GPU" not in said


def test_a_study_of_this_machine_says_which_gpus_it_has(study, capsys):
    record = json.loads((study / "study.json").read_text())
    here = {"hostname": "box", "processor": "CPU", "num_cores": 8, "num_gpus": 2, "gpu_kind": "Tesla V100"}
    (study / "study.json").write_text(json.dumps({**record, **here}))
    assert "on box (CPU, 8 cores, 2 GPUs Tesla V100)" in run(capsys, "report", study)[1]


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


@pytest.mark.parametrize(("rounds", "bars"), [(9, "(95 %)"), (3, "(range)"), (1, None)])
def test_error_bars_say_what_they_are_and_have_a_length_in_few_rounds_too(tmp_path, capsys, rounds, bars):
    pytest.importorskip("matplotlib")
    study = write_study(tmp_path / "study", slowness=NINE_ROUNDS[:rounds])
    # Of a run that is not as slow as its round the ratio differs.
    write_measurement(study / "round-000" / "weak-2", STEPS["weak-2"], 1.1)
    figures = draw([read_study(study)])
    for name in ("efficiency", "throughput", "speed-up"):
        (axes,) = figures[name].axes
        (line,) = axes.containers
        (segments,) = line.lines[2]
        heights = [abs(high - low) for (_, low), (_, high) in segments.get_segments()]
        assert max(heights) > 0 if bars else max(heights) == 0
        assert ((bars or "weak") in line.get_label(), "(" in line.get_label()) == (True, bars is not None)
    _, said, _ = run(capsys, "report", study)
    assert ("(range " in said) == (bars == "(range)")


def test_each_baseline_has_a_line_of_what_is_ideal(tmp_path):
    pytest.importorskip("matplotlib")
    counts = {"from-1": (1, 2, 4, 8), "also-1": (1, 2), "from-4": (4, 8, 16)}
    studies = [
        read_study(write_study(tmp_path / name, {f"weak-{n}": [[0.1] * n] for n in of}, slowness=(1.0,)))
        for name, of in counts.items()
    ]
    (axes,) = draw(studies)["speed-up"].axes
    ideal = {
        line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "--"
    }
    assert ideal == {
        "ideal from 1 replica": [[1, 1], [2, 2], [4, 4], [8, 8]],
        "ideal from 4 replicas": [[4, 1], [8, 2], [16, 4]],
    }
    (axes,) = draw(studies)["efficiency"].axes
    (line,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert (line.get_label(), line.get_xydata().tolist()) == ("ideal", [[1, 1], [16, 1]])
    (axes,) = draw(studies[:1])["speed-up"].axes
    assert "ideal" in [line.get_label() for line in axes.lines]


def test_the_text_says_method_cause_and_recommendation(study, capsys):
    _, said, _ = run(capsys, "report", study)
    assert "9 rounds" in said
    assert "of it to the exchange of gradients 12.0 % (" in said
    assert "Recommended: 1 node, 2 replicas" in said
    _, said, _ = run(capsys, "report", study, "--threshold", "0.85")
    assert "Recommended: 1 node, 1 replica:" in said


@pytest.mark.parametrize("is_synthetic", [False, True])
def test_the_text_says_what_was_read_and_which_libraries_were_loaded(is_synthetic, tmp_path, capsys):
    further = {
        "versions": {"tensorflow": "2.21.0"},
        "libraries": {"mpi": "Open MPI v5", "nccl": "2.20", "driver": None},
        "data": {"is_synthetic": is_synthetic},
    }
    _, said, _ = run(capsys, "report", write_study(tmp_path / "study", further=further))
    assert f"Measured: x/y on {'synthetic' if is_synthetic else 'real'} data on " in said
    assert "; tensorflow 2.21.0, Open MPI v5, NCCL 2.20" in said


def test_a_campaign_has_its_price_in_node_hours(study, capsys):
    _, said, _ = run(capsys, "report", study, "--campaign-epochs", "90")
    # 60000 samples at 128 samples/s on one node, 90 times.
    assert "90 epochs take 11.7 node-hours" in said
    assert "| node-hours for 90 epochs |" in said
    assert "| 11.7 |" in said


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("val_accuracy=0.9", Target("val_accuracy", 0.9, False)),
        ("val_mape=5", Target("val_mape", 5.0, True)),
        ("val_kl_divergence=1e-3", Target("val_kl_divergence", 1e-3, True)),
        ("val_ours<=5", Target("val_ours", 5.0, True)),
        ("val_loss>=5", Target("val_loss", 5.0, False)),
        ("f1_score[0]=0.5", Target("f1_score[0]", 0.5, False)),
        ("val_top-5=0.9", Target("val_top-5", 0.9, False)),
    ],
)
def test_a_target_is_any_metric_and_what_is_better_of_it(text, target):
    assert parse_target(text) == target


def test_a_metric_whose_name_does_not_tell_what_is_better_needs_a_sign():
    with pytest.raises(BadInput, match="pass 'val_ours>=5' or 'val_ours<=5', in quotes"):
        parse_target("val_ours=5")


@pytest.mark.parametrize(
    ("target", "epochs"), [("f1_score=0.5", "2"), ("f1_score[0]=0.5", "3"), ("f1_score[1]=0.5", "1")]
)
def test_a_metric_of_several_values_is_reached_by_each_or_by_their_mean(tmp_path, capsys, target, epochs):
    one = write_run(tmp_path / "one", 1, [0.5, 0.8, 0.95], 10.0, 1000.0)
    (one / "history.csv").write_text("epoch,f1_score[0],f1_score[1]\n1,0.1,0.6\n2,0.4,0.8\n3,0.6,0.8\n")
    _, said, _ = run(capsys, "report", one, "--target", target, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(said))
    assert row["epochs to target"] == epochs


def test_runs_are_compared_by_the_time_to_their_target_and_by_throughput(study, tmp_path, capsys):
    runs = [
        # Of the second epoch there is no value.
        write_run(tmp_path / "one", 1, [0.5, "", 0.91, 0.92], 10.0, 100.0),
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
    assert (eight["reached it"], eight["epochs to target"], eight[time]) == ("0", "", "")
    _, said, _ = run(capsys, "report", study, *runs, "--target", "val_accuracy=0.9")
    assert "Time to val_accuracy >= 0.9" in said
    assert "of a step are lost" in said
    status, _, error = run(capsys, "report", study, *runs, *words)  # two tables, for one file
    assert (status, "pass --output" in error) == (EXIT_BAD_INPUT, True)
    assert run(capsys, "report", study, *runs, *words, "--output", tmp_path / "out")[0] == EXIT_DONE
    for name in ("scaling.csv", "time-to-target.csv"):
        assert len(list(csv.DictReader(io.StringIO((tmp_path / "out" / name).read_text())))) >= 2
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
    assert (tmp_path / "report" / "allreduce.csv").exists()
    path.write_text('{"kind": "allreduce", "schema_version": 2}')
    status, _, error = run(capsys, "report", path)
    assert (status, "schema 2" in error) == (EXIT_BAD_INPUT, True)


def test_a_record_of_sums_has_a_table(study, tmp_path, capsys):
    seconds = {
        "mpi": {"4096": [2e-5], "1024": [1e-5, 1e-5, 9.0]},
        "horovod": {"1024": [1e-3], "4096": [2e-3]},
    }
    record = {"kind": "allreduce", "num_ranks": 2, "seconds": seconds, "is_calm": False}
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(record))
    status, said, _ = run(capsys, "report", path)
    assert status == EXIT_DONE
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| 2 ")]
    assert rows[0] == ["2", "1024", "10.0", "1000", "990", "0.102", "0.00102", "foreign load"]
    assert [row[1] for row in rows] == ["1024", "4096"]
    _, said, _ = run(capsys, "report", path, "--format", "csv")
    assert said.startswith("ranks,bytes,MPI us,Horovod us,added us,MPI GB/s,Horovod GB/s,remark\n2,1024,")
    status, _, error = run(capsys, "report", study, path, "--format", "csv")
    assert (status, "received studies and sums, which make 2" in error) == (EXIT_BAD_INPUT, True)


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
    assert "weak: One point only" in said
    assert "no evidence" in said
    assert "Recommended" not in said
    steps = {**STEPS, "strong-2": [[0.125, 0.120]]}
    _, said, _ = run(capsys, "report", write_study(tmp_path / "both", steps, slowness=NINE_ROUNDS))
    assert ("strong: One point only" in said, "weak: One point only" in said) == (True, False)


@pytest.mark.parametrize(("site", "fewest"), [(None, 6), ("small", 3)])
def test_nothing_is_recommended_where_there_is_no_evidence(tmp_path, capsys, site, fewest):
    for rounds in (1, fewest - 1, fewest):
        study = write_study(tmp_path / f"of-{rounds}", slowness=(1.0,) * rounds)
        rewrite(study / "study.json", lambda record: record.update(site=site))
        _, said, _ = run(capsys, "report", study)
        assert ("no evidence" in said, "Recommended" in said) == (rounds < fewest, rounds >= fewest)
        assert ("That is provisional: 4 jobs of each point" in said) == (
            site is not None and rounds == fewest
        )


def test_a_recommendation_says_where_its_interval_falls_below_the_threshold(tmp_path, capsys):
    study = write_study(tmp_path / "study", slowness=(1.0,) * 9)
    _, said, _ = run(capsys, "report", study)
    assert (
        "Recommended: 1 node, 2 replicas: the most measured with an efficiency of at least 75 %: 80.0" in said
    )
    assert "below the threshold" not in said
    for number in range(3):
        write_measurement(study / f"round-{number:03d}" / "weak-2", STEPS["weak-2"], 1.2)
    _, said, _ = run(capsys, "report", study)
    assert "at least 75 %: 80.0 % (66.7 to 80.0)." in said
    assert "the 95 % interval reaches below the threshold" in said


def test_jobs_of_a_site_are_not_paired_and_its_method_says_so(tmp_path, capsys):
    drift = (1.0, 2.0, 4.0, 8.0)
    here, there = (write_study(tmp_path / name, slowness=drift) for name in ("here", "there"))
    rewrite(there / "study.json", lambda record: record.update(site="small"))
    _, said, _ = run(capsys, "report", here, "--format", "json")
    paired = json.loads(said)[0]["rows"][1]
    _, said, _ = run(capsys, "report", there, "--format", "json")
    base, unpaired = json.loads(said)[0]["rows"]
    assert (paired["is_paired"], unpaired["is_paired"], base["is_paired"]) == (True, False, True)
    assert paired["speed_up"]["smallest"] == pytest.approx(paired["speed_up"]["largest"])
    assert unpaired["speed_up"]["low"] < 0.5 < 4 < unpaired["speed_up"]["high"]
    assert base["efficiency"]["low"] is None  # in four rounds; but it is 100 % of itself in each
    assert base["efficiency"]["smallest"] == base["efficiency"]["largest"] == 1.0
    _, said, _ = run(capsys, "report", there)
    assert "ratios are not paired" in said
    assert "sign test" not in said
    assert "each within its round" in run(capsys, "report", here)[1]


def test_a_baseline_of_less_than_a_node_is_called_so(tmp_path, capsys):
    study = write_study(tmp_path / "study")
    rewrite(study / "study.json", lambda record: record.update(site="small"))
    assert "Baseline: part of a node with 1 replica" in run(capsys, "report", study)[1]

    def on_two_nodes(record):
        record["points"][1]["num_nodes"] = 2

    rewrite(study / "study.json", on_two_nodes)
    assert "Baseline: 1 node with 1 replica" in run(capsys, "report", study)[1]


def test_a_point_without_a_round_in_common_with_the_baseline_is_not_paired_and_it_is_said(tmp_path, capsys):
    study = write_study(tmp_path / "study", slowness=(1.0, 1.0))
    for at in ("round-000/weak-1", "round-001/weak-2"):
        (study / at / "measurement.json").unlink()
    assert "Not in one round with the baseline: its ratios are not paired" in run(capsys, "report", study)[1]


def test_studies_of_different_software_are_kept_apart(study, tmp_path, capsys):
    other = write_study(tmp_path / "second", versions={"hpcdl": "2"})
    status, _, error = run(capsys, "report", study, other)
    assert status == EXIT_BAD_INPUT
    assert "hpcdl (1, 2)" in error
    status, said, _ = run(capsys, "report", study, other, "--force")
    assert status == EXIT_DONE
    assert "| first | weak | 1 |" in said
    assert "| second | weak | 1 |" in said


def test_advice_stands_under_the_name_of_its_study(tmp_path, capsys):
    # Of two ranks without controls nothing is found, but one follows.
    few = {"weak-1": [[0.100]], "weak-2": [[0.125, 0.125]]}
    studies = [
        write_study(tmp_path / name, steps, slowness=NINE_ROUNDS)
        for name, steps in (("aa", STEPS), ("bb", few))
    ]
    _, said, _ = run(capsys, "report", *studies)
    _, of_first, of_second = re.split("### .*: what was found", said)
    assert of_first.count("Recommended") == of_second.count("Recommended") == 1
    assert "### bb: what was found" in said


def test_studies_whose_folders_have_the_same_name_are_told_apart(tmp_path, capsys, monkeypatch):
    for name in ("a/scaling", "b/scaling", "b/other"):
        write_study(tmp_path / name, slowness=NINE_ROUNDS)
    monkeypatch.chdir(tmp_path / "b" / "scaling")
    _, said, _ = run(capsys, "report", ".", "../../a/scaling", "../other")
    for name in ("b/scaling", "a/scaling", "other"):
        assert f"### {name}\n" in said
        assert f"| {name} | weak | 1 |" in said
    _, said, _ = run(capsys, "report", ".", "--format", "json")
    assert json.loads(said)[0]["name"] == "scaling"
    status, _, error = run(capsys, "report", ".", "../scaling")
    assert (status, f"{tmp_path}/b/scaling again" in error) == (EXIT_BAD_INPUT, True)


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
    ("changes", "what"),
    [
        ({"config": {"precision": "mixed_float16"}}, "precision (float32, mixed_float16)"),
        ({"config": {"xla": True}}, "xla (False, True)"),
        ({"identity": {"model": "cd34"}}, "model (ab12, cd34)"),
        ({"identity": {"loss": "mse"}}, "loss (mae, mse)"),
        ({"identity": {"optimizer": {"class": "SGD"}}}, "optimizer class (Adam, SGD)"),
        ({"identity": {"optimizer": {"clipnorm": 1.0}}}, "optimizer clipnorm (None, 1.0)"),
    ],
)
def test_records_of_different_trainings_are_not_put_into_one_curve(tmp_path, capsys, changes, what):
    study = write_study(tmp_path / "study", slowness=NINE_ROUNDS)
    optimizer = {"class": "Adam", "clipnorm": None}
    same = {"model": "ab12", "loss": "mae"}
    for path in study.glob("round-*/*/process-*/run.json"):
        ranks = json.loads(path.read_text())["topology"]["world_size"]

        def add(record, rate=0.1 * ranks):  # which a script may choose by the number of ranks
            record["config"].update(precision="float32", xla=False)
            record["identity"] = {**same, "optimizer": {**optimizer, "learning_rate": rate}}

        rewrite(path, add)
    after = write_study(tmp_path / "after", slowness=NINE_ROUNDS)
    parts = {"report": (), "compare": (after,), "predict": ("--num-replicas", "8")}
    for part, more in parts.items():
        assert run(capsys, part, study, *more)[0] == EXIT_DONE

    def change(record):
        record["config"].update(changes.get("config", {}))
        identity = changes.get("identity", {})
        optimizer = {**record["identity"]["optimizer"], **identity.get("optimizer", {})}
        record["identity"].update({**identity, "optimizer": optimizer})

    rewrite(study / "round-002" / "weak-2" / "process-0" / "run.json", change)
    for part, more in parts.items():
        status, said, error = run(capsys, part, study, *more)
        assert (status, said) == (EXIT_BAD_INPUT, "")
        assert f"which differ in {what};" in error
        assert run(capsys, part, study, *more, "--force")[0] == EXIT_DONE


@pytest.mark.parametrize(
    ("factor", "status", "verdict"),
    [(1.3, EXIT_FAILED, "slower"), (0.7, EXIT_DONE, "faster"), (1.0, EXIT_DONE, "the same")],
)
def test_a_comparison_says_whether_it_got_slower(study, tmp_path, capsys, factor, status, verdict):
    after = write_study(tmp_path / "after", slowness=[factor * s for s in NINE_ROUNDS])
    found, said, _ = run(capsys, "compare", study, after, "--margin", "3")
    assert found == status
    assert [line.split()[-1] for line in said.splitlines()] == [verdict.split()[-1]] * 2
    found, said, _ = run(capsys, "compare", study, after, "--margin", "3", "--json")
    assert (found, [point["verdict"] for point in json.loads(said)["points"]]) == (status, [verdict] * 2)


def test_few_rounds_are_no_verdict_and_do_not_pass(tmp_path, capsys):
    few = [write_study(tmp_path / name, slowness=(factor,) * 3) for name, factor in (("a", 1.0), ("b", 2.0))]
    status, said, _ = run(capsys, "compare", *few)
    assert status == EXIT_UNDECIDED
    assert "too few rounds" in said
    enough = [write_study(tmp_path / f"{n}", slowness=(float(n),) * 9) for n in (1, 2)]
    for number in range(3, 9):  # one point is slower, the other cannot be told
        for folder, slowness in zip(few, (1.0, 2.0)):
            write_measurement(folder / f"round-{number:03d}" / "weak-2", STEPS["weak-2"], slowness)
    status, said, _ = run(capsys, "compare", *few)
    assert (status, "too few rounds" in said, "slower" in said) == (EXIT_FAILED, True, True)
    assert run(capsys, "compare", *enough)[0] == EXIT_FAILED


def test_many_points_do_not_make_a_chance_a_verdict(tmp_path, capsys):
    # Four rounds of each give 95 % to one point (1 in 35), but not to two points together.
    one = {"weak-1": STEPS["weak-1"]}
    for steps, status in ((one, EXIT_FAILED), (STEPS, EXIT_UNDECIDED)):
        pair = [write_study(tmp_path / f"{len(steps)}-{f}", steps, slowness=(f,) * 4) for f in (1.0, 2.0)]
        assert run(capsys, "compare", *pair)[0] == status


def rewrite(path, change):
    """Changes a record in its place."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def other_batch(folder):
    for path in folder.glob("round-*/*/process-0/run.json"):
        rewrite(path, lambda record: record["config"].update(global_batch_size=4, per_replica_batch_size=4))


def other_precision(folder):
    for path in folder.glob("round-*/*/process-0/run.json"):
        rewrite(path, lambda record: record["config"].update(precision="mixed_float16"))


def other_window(folder):
    window = {"untimed_steps": 11, "timed_steps": 3}
    rewrite(folder / "study.json", lambda record: record.update(window=window))


def other_command(folder):
    rewrite(folder / "study.json", lambda record: record.update(command=["--xla", "x/y"]))


@pytest.mark.parametrize("part", ["compare", "predict"])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (other_batch, "global batch of weak-1 (8, 4)"),
        (other_precision, "precision (float32, mixed_float16)"),
        (other_window, "steps (4 after 10, 3 after 11)"),
        (other_command, "command (x/y, --xla x/y)"),
    ],
)
def test_what_measured_different_things_is_neither_compared_nor_fitted(tmp_path, capsys, part, change, what):
    studies = [write_study(tmp_path / name, slowness=NINE_ROUNDS) for name in ("a", "b")]
    for folder in studies:
        rewrite(folder / "study.json", lambda record: record.update(command=["x/y"]))
        for path in folder.glob("round-*/*/process-0/run.json"):
            rewrite(path, lambda record: record["config"].update(precision="float32"))
    words = (part, *studies, *(("--num-replicas", "8") if part == "predict" else ()))
    assert run(capsys, *words)[0] == EXIT_DONE
    change(studies[1])
    status, said, error = run(capsys, *words)
    assert (status, said) == (EXIT_BAD_INPUT, "")
    assert what in error
    assert run(capsys, *words, "--force")[0] != EXIT_BAD_INPUT


def test_a_model_is_fitted_to_one_software_and_one_machine_only(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", slowness=NINE_ROUNDS, versions={"hpcdl": "2"})
    rewrite(other / "study.json", lambda record: record.update(num_gpus=4))
    status, _, error = run(capsys, "predict", study, other, "--num-replicas", "8")
    assert status == EXIT_BAD_INPUT
    assert "hpcdl (1, 2), num_gpus (0, 4)" in error
    # It is what a comparison is for, and is said.
    status, said, _ = run(capsys, "compare", study, other)
    assert status == EXIT_DONE
    assert "what differs: hpcdl (1, 2), num_gpus (0, 4)" in said


@pytest.mark.parametrize(
    ("further", "what"),
    [
        ({"title": "mnist/fc64"}, "title (x/y, mnist/fc64)"),
        ({"versions": {"tensorflow": "2.15.1"}}, "tensorflow (2.21.0, 2.15.1)"),
        ({"status": "running"}, "two (running)"),
    ],
)
def test_times_to_a_target_are_those_of_one_training_that_is_over(tmp_path, capsys, further, what):
    known = {"versions": {"tensorflow": "2.21.0"}}
    runs = [
        write_run(tmp_path / name, 1, [0.5, 0.9], 1.0, 100.0, more)
        for name, more in (("one", known), ("two", {**known, **further}))
    ]
    words = ("report", *runs, "--target", "val_accuracy=0.9")
    status, said, error = run(capsys, *words)
    assert (status, said) == (EXIT_BAD_INPUT, "")
    assert what in error
    assert run(capsys, *words, "--force")[0] == EXIT_DONE


def test_what_has_no_point_in_common_is_not_compared(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", {"weak-3": [[0.1, 0.1, 0.1]]})
    status, _, error = run(capsys, "compare", study, other)
    assert status == EXIT_BAD_INPUT
    assert "weak-3 on 1 node, 1 cores per rank" in error


def test_a_prediction_says_its_range_and_its_error_on_what_it_was_not_given(tmp_path, capsys):
    table = tmp_path / "measured.csv"
    table.write_text("replicas,samples_per_second\n1,100\n2,195\n4,380\n8,745\n")
    status, said, _ = run(capsys, "predict", "--table", table, "--num-replicas", "16,512")
    assert status == EXIT_DONE
    assert "fitted to 1, 2 only, its error at the others is 4: " in said
    assert "extrapolated beyond 8, the largest that was measured: 16 (2.00 times), 512 (64.0 times)" in said
    row = next(line.split() for line in said.splitlines() if line.split()[:1] == ["16"])
    assert float(row[2]) < float(row[1]) < float(row[4])
    _, said, _ = run(capsys, "predict", "--table", table, "--num-replicas", "16,512", "--json")
    tree = json.loads(said)
    at = tree["at"][0]
    shown = (at["samples_per_second"], at["low"], at["high"])
    assert [float(row[i]) for i in (1, 2, 4)] == pytest.approx(shown, rel=0.01)
    assert (set(tree["held_out_errors"]), at["times_largest_measured"]) == ({"4", "8"}, 2)


def test_every_count_beyond_the_largest_measured_is_called_an_extrapolation(tmp_path, capsys):
    table = tmp_path / "measured.csv"
    table.write_text("replicas,samples_per_second\n1,100\n2048,195000\n4096,380000\n")
    _, said, _ = run(capsys, "predict", "--table", table, "--num-replicas", "64,27360")
    assert "extrapolated beyond 4096, the largest that was measured: 27360 (6.68 times)" in said
    assert "extrapolated" not in run(capsys, "predict", "--table", table, "--num-replicas", "64,4096")[1]


def test_given_numbers_predict_without_a_measurement_and_say_so(capsys):
    network = ("--step-ms", "476", "--megabytes", "95.4", "--gb-per-s", "3.125", "--latency-us", "5")
    status, said, _ = run(capsys, "predict", *network, "--num-replicas", "512")
    assert status == EXIT_DONE
    assert "computed from given numbers, not fitted and not measured" in said
    rows = {line.split()[1]: line.split()[2:] for line in said.splitlines() if line.split()[:1] == ["512"]}
    assert set(rows) == {"ring", "halving-doubling", "recursive-doubling"}
    # 2 x 511 x 5 us, and 2 x 511/512 x 95.4 MB over 3.125 GB/s: 66.0 ms beside 476 ms.
    assert rows["ring"] == ["66.0", "87.8", "to", "100.0"]
    # The ranks of a node send at once through its network, but not in a ring; of 2 ranks no 4 share it.
    _, said, _ = run(
        capsys, "predict", *network, "--ranks-per-node", "4", "--num-replicas", "512,2", "--json"
    )
    of_512, of_2 = json.loads(said)["at"]
    ms = {name: 1e3 * at["exchange_s"] for name, at in of_512.items() if name != "num_replicas"}
    assert ms["ring"] == pytest.approx(66.0, abs=0.1)
    assert ms["halving-doubling"] == pytest.approx(18 * 0.005 + 4 * 2 * 511 / 512 * 95.4 / 3.125)
    assert ms["recursive-doubling"] == pytest.approx(9 * (0.005 + 4 * 95.4 / 3.125))
    assert 1e3 * of_2["recursive-doubling"]["exchange_s"] == pytest.approx(0.005 + 2 * 95.4 / 3.125)
    hierarchy = ("--ranks-per-node", "4", "--inside-gb-per-s", "12")
    _, said, _ = run(capsys, "predict", *network, *hierarchy, "--num-replicas", "512")
    (row,) = (line.split() for line in said.splitlines() if "hierarchical" in line)
    # The same bytes cross a node's network; within the node 2 x 3/4 x 95.4 MB over 12 GB/s more, with fewer messages.
    inside, between = 2 * 0.75 * 95.4 / 12, 2 * 127 / 128 * 95.4 / 3.125
    assert float(row[2]) == pytest.approx(inside + between + (6 + 254) * 0.005, abs=0.1)


@pytest.mark.parametrize("zeros", [12, 400, 5000])
def test_more_replicas_than_any_machine_has_are_refused(tmp_path, capsys, zeros):
    many, table = f"1{zeros * '0'}", tmp_path / "table.csv"
    table.write_text("replicas,samples_per_second\n1,100\n2,199\n")
    for words in (("--table", table), GIVEN, (*GIVEN, "--json")):
        status, _, error = run(capsys, "predict", *words, "--num-replicas", many)
        assert status == EXIT_BAD_INPUT
        assert "--num-replicas must be a whole number >= 1 and <= 1000000000; received" in error
    table.write_text(f"replicas,samples_per_second\n1,100\n{many},199\n")
    assert run(capsys, "predict", "--table", table, "--num-replicas", "4")[0] == EXIT_BAD_INPUT


def test_the_range_of_a_prediction_grows_with_the_intervals_of_the_study(tmp_path, capsys):
    lows = []
    for name, slowness in (("steady", (1.0,) * 9), ("unsteady", (1.0, 0.8, 1.25) * 3)):
        study = write_study(tmp_path / name, slowness=slowness)
        _, said, _ = run(capsys, "predict", study, "--num-replicas", "64")
        row = next(line.split() for line in said.splitlines() if line.split()[:1] == ["64"])
        lows.append(float(row[2].replace(",", "")) / float(row[1].replace(",", "")))
    assert lows[1] < lows[0] - 0.05


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
        ("predict", "{study}", "--step-ms", "4", "--num-replicas", "4"),
        ("predict", "--step-ms", "4", "--num-replicas", "4"),
        ("predict", "--step-ms", "4", "--megabytes", "0", "--gb-per-s", "1", "--num-replicas", "4"),
        ("predict", "--step-ms=", "--megabytes", "1", "--gb-per-s", "1", "--num-replicas", "4"),
        ("predict", *GIVEN, "--latency-us=", "--num-replicas", "4"),
        ("predict", *GIVEN, "--inside-gb-per-s", "9", "--num-replicas", "4"),
        ("predict", *GIVEN, "--ranks-per-node", "4", "--inside-gb-per-s", "9", "--num-replicas", "6"),
        ("report", "{missing}"),
        ("report", "{study}", "--output", "{study}/study.json"),
        ("report", "{study}", "--output", "{study}/study.json/new"),
        ("report", "{study}", "--format", "pdf"),
        ("report", "{study}", "--threshold", "75"),
        ("report", "{study}", "--threshold", "nan"),
        ("compare", "{study}", "{study}", "--margin", "nan"),
        ("reprot", "{study}"),
        ("allreduce", "--bytes", "3"),
        ("allreduce", "--json", "{study}"),
        ("allreduce", "--json", "{study}/study.json/new"),
        ("--dry-run", "--lock", "{study}/study.json/new", "fashion_mnist/fc64"),
        ("--dry-run", "--study", "{study}/study.json", "fashion_mnist/fc64"),
    ],
)
def test_bad_words_are_one_line_and_status_2(study, tmp_path, capsys, words):
    names = {"missing": str(tmp_path / "missing"), "study": str(study)}
    status, said, error = run(capsys, *[word.format(**names) for word in words])
    assert status == EXIT_BAD_INPUT
    assert said == ""
    assert len(error.splitlines()) == 1
