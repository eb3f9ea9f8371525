from __future__ import annotations

import csv

from nnmpq.training.monitor import Series, progress_bar, write_metrics
from nnmpq.training.progress import Row

LEARN = Row(1, "learn", 0.1 + 0.2, 1 / 3, 0.5, 0.25, 1.5, 70.125, 4.0, 0.5, 0.1, 0.01)
PROJECT = Row(1, "project", None, None, None, 0.5, 2.0, 60.0, 3.0, 0.375, None, None)
FINETUNE = Row(2, "finetune", 0.25, 0.25, 0.125, 0.25, 1.0, 60.0, 3.0, 0.375, 0.001, None)


def test_metrics_hold_every_digit_and_leave_unknown_cells_empty(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics(path, [LEARN, PROJECT])
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["loss"]) == 0.1 + 0.2 and float(rows[0]["cross_entropy"]) == 1 / 3
    assert (rows[0]["epoch"], rows[0]["phase"]) == ("1", "learn")
    assert (rows[1]["loss"], rows[1]["learning_rate"], rows[1]["weights_kib"]) == ("", "", "60.0")


def test_metrics_are_rewritten_not_appended(tmp_path):
    path = tmp_path / "metrics.csv"
    write_metrics(path, [LEARN])
    once = path.read_bytes()
    write_metrics(path, [LEARN])
    assert path.read_bytes() == once
    write_metrics(path, [])
    assert path.read_text().count("\n") == 1


def test_series_have_a_line_an_epoch_without_the_projection(tmp_path):
    series = Series(tmp_path, [])
    for row in (LEARN, PROJECT, FINETUNE):
        series.add(row)
    assert (tmp_path / "validation-error.series.txt").read_text() == "1 0.25\n2 0.25\n"
    assert (tmp_path / "weights-KiB.series.txt").read_text() == "1 70.125\n2 60\n"
    assert len(list(tmp_path.iterdir())) == 8


def test_a_resumed_run_has_no_line_twice(tmp_path):
    series = Series(tmp_path, [])
    series.add(LEARN)
    series.add(FINETUNE)  # its checkpoint was never written
    again = Series(tmp_path, [LEARN])
    again.add(FINETUNE)
    assert (tmp_path / "loss.series.txt").read_text() == "1 0.3\n2 0.25\n"


def test_no_bar_where_nobody_looks(capsys):
    assert list(progress_bar(range(3), 3, "learn 1", quiet=False)) == [0, 1, 2]
    assert list(progress_bar(range(3), 3, "learn 1", quiet=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress_bar(range(3), 3, "learn 1", quiet=False)) == [0, 1, 2]
    assert "learn 1" in capsys.readouterr().err
    assert list(progress_bar(range(3), 3, "learn 1", quiet=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
