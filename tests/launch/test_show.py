"""Results of runs are shown from their files, whatever state a run is in."""

from __future__ import annotations

import errno
import json
import os
import re
import sys

import pytest

from hpcdl.common.errors import BadInput
from hpcdl.common.records import write_history, write_json
from hpcdl.launch.show import _labels, _panels, draw, draw_each, find_runs, main, read_run, render

RECORD = {
    "status": "done",
    "topology": {"world_size": 2},
    "config": {"strategy": "horovod", "replicas_per_process": 1, "global_batch_size": 256, "epochs": 3},
    "samples_per_second": 3210.4,
}
HISTORY = {"loss": [0.5, 0.25, 0.125], "val_loss": [0.6, 0.4, 0.3], "val_accuracy": [0.8, 0.9, 0.95]}


def make(folder, history=HISTORY, **changes):
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {**RECORD, **changes})
    if history:
        write_history(folder / "history.csv", history)
    return folder


def test_a_run_is_one_row_with_its_last_values(tmp_path):
    lines = render([read_run(make(tmp_path / "first"))]).splitlines()
    head = ["run", "status", "world", "batch", "epochs", "loss", "val_loss", "val_accuracy", "samples/s"]
    assert lines[0].split() == head
    assert lines[1].split()[1:] == [
        "done",
        "horovod",
        "2",
        "x",
        "1",
        "256",
        "3/3",
        "0.125",
        "0.3",
        "0.95",
        "3210",
    ]


def test_a_run_that_has_just_begun_is_shown_too(tmp_path):
    begun = make(tmp_path / "begun", history=None, status="running", samples_per_second=None)
    done = make(tmp_path / "done")
    lines = render([read_run(begun), read_run(done)]).splitlines()
    assert lines[1].split()[1:] == ["running", "horovod", "2", "x", "1", "256", "0/3", "-", "-", "-", "-"]
    assert len({len(line) for line in lines}) == 1  # columns are aligned


def test_a_metric_with_many_values_is_one_column_and_one_panel(tmp_path):
    history = {"loss": [0.5], **{f"val_f1[{i}]": [i / 1000] for i in range(1001)}}
    run = read_run(make(tmp_path / "first", history))
    assert render([run]).splitlines()[0].split()[5:] == ["loss", "val_f1", "samples/s"]
    assert render([run]).splitlines()[1].split()[-3:] == ["0.5", "0.5", "3210"]
    assert _panels([run]) == ["loss", "f1"]


def test_a_metric_that_the_last_epoch_lacks_has_no_last_value(tmp_path):
    run = read_run(make(tmp_path / "first", {"loss": [0.5, 0.25], "val_loss": [0.6, None]}))
    assert render([run]).splitlines()[1].split()[-4:] == ["2/3", "0.25", "-", "3210"]


def test_a_folder_of_runs_stands_for_them(tmp_path):
    first, second = make(tmp_path / "runs" / "a"), make(tmp_path / "runs" / "b")
    assert find_runs([tmp_path / "runs"]) == [first, second]
    assert find_runs([second]) == [second]


def test_later_fits_of_a_script_follow_its_first(tmp_path, capsys):
    first = make(tmp_path / "runs" / "first")
    later = [make(first / f"fit-{n}") for n in (2, 3, 10)]
    second = make(tmp_path / "runs" / "second")
    (first / "fit-4").mkdir()  # of which nothing was written
    assert find_runs([first]) == [first, *later]
    assert find_runs([tmp_path / "runs"]) == [first, *later, second]
    assert find_runs([first / "fit-2", first]) == [later[0], first, *later[1:]]
    assert main([str(first)]) == 0
    assert capsys.readouterr().out.endswith(f"curves: {first / 'curves.png'}\n")
    draw([read_run(path) for path in (second, later[0])], tmp_path / "both.svg")
    assert "<!-- first/fit-2, train -->" in (tmp_path / "both.svg").read_text()


def test_the_curves_are_drawn_into_the_run(tmp_path, capsys):
    run = make(tmp_path / "first")
    assert main([str(run)]) == 0
    assert (run / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert str(run / "curves.png") in capsys.readouterr().out
    assert sorted(p.name for p in run.iterdir()) == ["curves.png", "history.csv", "run.json"]


def lines_of(runs, tmp_path, monkeypatch):
    """Draws, and gives the lines of each panel: colour, style, epochs and values by label."""
    from matplotlib.figure import Figure

    figures, plain = [], Figure.savefig

    def savefig(self, *arguments, **more):
        figures.append(self)
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    draw([read_run(run) for run in runs], tmp_path / "curves.png")
    (figure,) = figures
    return {
        axes.get_ylabel(): {
            line.get_label(): (line.get_color(), line.get_linestyle(), *map(list, line.get_data()))
            for line in axes.get_lines()
        }
        for axes in figure.axes
    }


def test_each_run_has_a_line_of_training_and_one_of_test_in_each_panel(tmp_path, monkeypatch):
    second = {"loss": [0.75, 0.5], "val_loss": [0.875, 0.625]}
    runs = [make(tmp_path / "first"), make(tmp_path / "second", second)]
    epochs = [1, 2, 3]
    assert lines_of(runs, tmp_path, monkeypatch) == {
        "loss": {
            "first, train": ("C0", "-", epochs, HISTORY["loss"]),
            "first, test": ("C0", "--", epochs, HISTORY["val_loss"]),
            "second, train": ("C1", "-", epochs[:2], second["loss"]),
            "second, test": ("C1", "--", epochs[:2], second["val_loss"]),
        },
        "accuracy": {"first, test": ("C0", "--", epochs, HISTORY["val_accuracy"])},
    }


def test_a_value_is_drawn_at_its_epoch(tmp_path, monkeypatch):
    run = make(tmp_path / "first", {"loss": [0.5, 0.25, 0.125], "val_loss": [None, 0.5, None]})
    (lines,) = lines_of([run], tmp_path, monkeypatch).values()
    assert lines["first, train"][2:] == ([1, 2, 3], [0.5, 0.25, 0.125])
    assert lines["first, test"][2:] == ([2], [0.5])


def test_of_one_epoch_the_axis_has_no_fractions(tmp_path):
    run = make(tmp_path / "first", {"loss": [0.5], "val_loss": [0.6]})
    draw([read_run(run)], tmp_path / "one.svg")
    axis = (tmp_path / "one.svg").read_text().partition('id="matplotlib.axis_1"')[2]
    ticks = axis.partition('id="matplotlib.axis_2"')[0]
    assert re.findall(r"<!-- ([^>]*) -->", ticks) == ["1", "epoch"]


def test_several_runs_share_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [make(tmp_path / name) for name in ("a", "b")]
    assert main([*map(str, runs), "--curves", "both.svg"]) == 0
    svg = (tmp_path / "both.svg").read_text()
    assert svg.count("<svg") == 1
    assert not (tmp_path / "curves.png").exists()


def test_json_has_records_and_histories(tmp_path, capsys):
    run = make(tmp_path / "first")
    assert main(["--json", str(run)]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown == {"path": str(run), "record": RECORD, "history": HISTORY}


def test_a_value_that_is_missing_or_no_number_is_null_in_json(tmp_path, capsys):
    history = {"loss": [0.5, float("nan")], "val_loss": [None, 0.6]}
    run = make(tmp_path / "first", history)
    # As an earlier hpcdl wrote it.
    (run / "run.json").write_text('{"schema_version": 1, "status": "done", "final_metrics": {"loss": NaN}}')
    assert main(["--json", str(run)]) == 0
    out = capsys.readouterr().out
    assert "NaN" not in out
    shown = json.loads(out)[0]
    assert shown["history"] == {"loss": [0.5, None], "val_loss": [None, 0.6]}
    assert shown["record"]["final_metrics"] == {"loss": None}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"samples_per_second": "many"}, "samples_per_second"),
        ({"config": {"global_batch_size": "x"}}, "config.global_batch_size"),
        ({"topology": []}, "topology"),
        ({"epoch_seconds": [1.0, "x"]}, "epoch_seconds"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_line(tmp_path, changes, says):
    with pytest.raises(BadInput, match=f"damaged: its {says} cannot be read; name another run"):
        main([str(make(tmp_path / "first", **changes))])


def test_a_history_that_is_no_text_is_one_line(tmp_path):
    run = make(tmp_path / "first")
    (run / "history.csv").write_text("epoch,loss\n1," + 200_000 * "1" + "\n")
    with pytest.raises(BadInput, match="not a table with a column of epochs: field larger than"):
        main([str(run)])


def test_a_folder_into_which_nobody_may_look_is_one_line(tmp_path, monkeypatch, capsys):
    def denying(plain):
        def denied(path, *args, **kwargs):
            if "theirs" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return plain(path, *args, **kwargs)

        return denied

    make(tmp_path / "runs" / "theirs")
    make(tmp_path / "runs" / "ours")
    for name in ("stat", "open"):
        monkeypatch.setattr(os, name, denying(getattr(os, name)))
    with pytest.raises(BadInput, match="theirs, into which nobody may look: Permission denied; name"):
        main([str(tmp_path / "runs" / "theirs")])
    assert main([str(tmp_path / "runs"), "--no-curves"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[1:]] == [str(tmp_path / "runs" / "ours")]
    (line,) = told.err.splitlines()
    assert f"received {tmp_path / 'runs' / 'theirs'}" in line
    assert "Permission denied" in line


def test_of_a_folder_the_runs_that_can_be_read_are_shown_and_each_other_is_one_line(tmp_path, capsys):
    first, second = make(tmp_path / "runs" / "a"), make(tmp_path / "runs" / "e")
    (make(tmp_path / "runs" / "b") / "run.json").write_text('{"status": "do')
    make(tmp_path / "runs" / "c", schema_version=99)
    make(tmp_path / "runs" / "d", topology=[])
    (tmp_path / "runs" / "begun").mkdir()  # of which nothing was written
    (make(first / "fit-2") / "history.csv").write_text("epoch,loss\n1\n")
    assert main([str(tmp_path / "runs"), "--json"]) == 0
    told = capsys.readouterr()
    assert [run["path"] for run in json.loads(told.out)] == [str(first), str(second)]
    lines = told.err.splitlines()
    assert all(line.startswith("hpcdl: not shown: ") for line in lines)
    for line, name, why in zip(
        lines, ("a/fit-2", "b", "c", "d"), ("not a table", "Untermin", "schema 99", "topology")
    ):
        assert f"received {tmp_path / 'runs' / name}" in line
        assert why in line
    assert len(lines) == 4


def test_a_run_that_is_named_must_be_readable_whatever_others_are(tmp_path):
    good, bad = make(tmp_path / "runs" / "a"), make(tmp_path / "runs" / "b")
    (bad / "run.json").write_text("{")
    for named in ([bad], [good, bad], [tmp_path / "runs", bad]):
        with pytest.raises(BadInput, match="must be readable"):
            main([*map(str, named), "--no-curves"])


def test_a_folder_of_runs_of_which_none_can_be_read_is_refused(tmp_path):
    (make(tmp_path / "runs" / "a") / "run.json").write_text("{")
    with pytest.raises(BadInput, match="must be readable; received .*/runs/a: "):
        main([str(tmp_path / "runs")])


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_a_damaged_record_is_one_line(damage, tmp_path):
    run = make(tmp_path / "first")
    (run / "run.json").write_text(damage)
    with pytest.raises(BadInput, match="must be readable"):
        main([str(run)])


def test_a_damaged_history_is_one_line(tmp_path):
    run = make(tmp_path / "first")
    (run / "history.csv").write_text("epoch,loss\n1\n")
    with pytest.raises(BadInput, match="not a table"):
        main([str(run)])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"with a run\.json in it"):
        main([str(tmp_path)])


def test_a_picture_that_cannot_be_written_is_refused(tmp_path):
    run = read_run(make(tmp_path / "first"))
    with pytest.raises(BadInput, match="can be written"):
        draw([run], tmp_path / "nowhere" / "curves.png")
    with pytest.raises(BadInput, match="can be written"):
        draw([run], tmp_path / "curves.docx")
    assert not list(tmp_path.glob(".curves*"))


def test_runs_that_are_done_get_their_curves_and_one_without_values_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "first")
    make(tmp_path / "begun", history=None)
    draw_each([tmp_path / "first", tmp_path / "begun"])
    assert capsys.readouterr().out == "curves: first/curves.png\n"
    assert (tmp_path / "first" / "curves.png").is_file()
    assert not (tmp_path / "begun" / "curves.png").exists()


def test_a_fit_that_left_no_record_keeps_no_later_one_from_its_curves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "second")
    draw_each([tmp_path / "first", tmp_path / "second"])
    told = capsys.readouterr()
    assert told.out == "curves: second/curves.png\n"
    assert told.err.startswith("hpcdl: no curves are drawn: a run's files must be readable")


def test_runs_whose_folders_have_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = [make(tmp_path / folder / "run") for folder in "ab"] + [make(tmp_path / "alone")]
    assert _labels(paths) == [str(paths[0]), str(paths[1]), "alone"]


def test_without_matplotlib_one_line_says_so_and_the_runs_are_as_good(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = make(tmp_path / "first")
    draw_each([run, run])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("hpcdl: no curves are drawn: curves need matplotlib; received: ")
    assert "pip install matplotlib" in told[0]
