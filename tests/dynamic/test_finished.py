"""Finished runs are loaded again, and set beside each other."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import attrs
import nnabla as nn
import numpy as np
import pytest
from matplotlib.image import imread

from nnmpq.dynamic.compare import Row, compare, draw, main, markdown, uniform_work, with_times, write_rows
from nnmpq.dynamic.evaluate import choices
from nnmpq.dynamic.finished import experiment_of, load_gates
from nnmpq.dynamic.graphs import table_of
from nnmpq.policy import PolicyError
from nnmpq.training.errors import TrainingError


def result(runs: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((runs / name / "result.json").read_text()))


def test_a_loaded_run_has_the_accuracy_and_energy_that_it_ended_with(runs: Path) -> None:
    found = load_gates(runs / "CAMP_SP")
    test = choices(found.evaluation, found.data, found.data.test, found.account)
    expected = result(runs, "CAMP_SP")
    assert 1 - test.error == pytest.approx(expected["test_accuracy"])
    assert test.summary()["energy"] == pytest.approx(expected["energy"])
    assert test.summary()["spread_within"] == pytest.approx(expected["spread_within"], rel=1e-4)


def test_any_batch_size_gives_the_same_choices(runs: Path) -> None:
    taken = []
    for batch in (7, 50):
        found = load_gates(runs / "CAMP_SP", batch=batch)
        assert found.evaluation.images.shape[0] == batch
        taken.append(choices(found.evaluation, found.data, found.data.test, found.account).chosen)
    np.testing.assert_array_equal(*taken)


def test_the_weights_that_it_started_with_may_be_gone(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "CAMP_SP", tmp_path / "CAMP_SP")
    text = (tmp_path / "CAMP_SP" / "config.cfg").read_text()
    (tmp_path / "CAMP_SP" / "config.cfg").write_text(text.replace(str(runs), str(tmp_path / "gone")))
    assert load_gates(tmp_path / "CAMP_SP").experiment.weightfile is None


@pytest.mark.parametrize("name", ["config.cfg", "best.h5", "result.json"])
def test_an_unfinished_run_is_refused_with_what_is_missing(name: str, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "CAMP_SP", tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(TrainingError, match=f"{name} is missing"):
        load_gates(tmp_path / "run")


def test_a_damaged_result_is_refused_with_its_folder(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "CAMP_SP", tmp_path / "run")
    for text in ("{", "{}", '{"experiment": "OTHER"}'):
        (tmp_path / "run" / "result.json").write_text(text)
        with pytest.raises(TrainingError, match="run"):
            experiment_of(tmp_path / "run")


def test_a_run_without_gates_is_refused(runs: Path) -> None:
    assert experiment_of(runs / "W4A4").gate_training is None
    with pytest.raises(TrainingError, match="W4A4 has no gates"):
        load_gates(runs / "W4A4")


def test_rows_are_what_the_runs_say(runs: Path) -> None:
    gates, uniform = compare([runs / "CAMP_SP", runs / "W4A4"])
    for row, name in ((gates, "CAMP_SP"), (uniform, "W4A4")):
        expected = result(runs, name)
        assert row.name == name
        assert row.test_accuracy == expected["test_accuracy"]
        assert row.validation_accuracy == expected["validation_accuracy"]
    expected = result(runs, "CAMP_SP")
    assert (gates.energy, gates.bitops) == (expected["energy"], expected["bitops"])
    assert gates.widest_share == expected["widest_share"]
    # The uniform network at the widest precision is the measure of all energies.
    assert uniform.energy == pytest.approx(1.0)
    assert uniform.bitops == pytest.approx(result(runs, "W4A4")["cost"]["bitops"])
    assert uniform.widest_share is None and uniform.one_ms is None


def test_the_account_of_a_run_agrees_with_the_policy_of_the_uniform_one(runs: Path) -> None:
    found = load_gates(runs / "CAMP_SP")
    work, _ = uniform_work(runs / "W4A4", found.evaluation.network.network, table_of(found.experiment))
    assert work.energy == pytest.approx(found.account.uniform(-1).energy)
    assert work.bitops == pytest.approx(found.account.uniform(-1).bitops)


def test_without_a_run_with_gates_there_is_nothing_to_compare(runs: Path) -> None:
    with pytest.raises(TrainingError, match="none of W4A4 has gates"):
        compare([runs / "W4A4"])


def test_a_uniform_run_of_another_network_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "W4A4", tmp_path / "W4A4")
    policy = (tmp_path / "W4A4" / "policy.yaml").read_text()
    (tmp_path / "W4A4" / "policy.yaml").write_text(policy.replace("res1/", "other1/"))
    with pytest.raises(PolicyError):
        compare([runs / "CAMP_SP", tmp_path / "W4A4"])


ROWS = [
    Row("W4A4", 0.9, 0.895, 1.0, 1.095e9),
    Row("W1A1", 0.6, 0.61, 0.5, 0.5e9),
    Row("GATES", 0.85, 0.84, 0.8, 0.8e9, 0.4, 0.3, 0.1),
]


def test_times_go_to_the_rows_that_have_them(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("name,one_ms,batch_ms\nGATES,2.5,1.25\nW4A4,2.0,1.0\nOTHER,9,9\n")
    found = {row.name: row for row in with_times(ROWS, tmp_path / "times.csv")}
    assert (found["GATES"].one_ms, found["GATES"].batch_ms) == (2.5, 1.25)
    assert (found["W4A4"].one_ms, found["W4A4"].batch_ms) == (2.0, 1.0)
    assert found["W1A1"] == ROWS[1]
    assert list(found) == ["W4A4", "W1A1", "GATES"]


def test_the_table_has_a_line_a_row_and_as_many_cells_as_its_head() -> None:
    timed = attrs.evolve(ROWS[2], one_ms=2.5, batch_ms=1.25)
    lines = markdown([*ROWS[:2], timed]).splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    cells = "| `GATES` | 85.00 | 84.00 | 0.800 | 0.800 | 0.400 | 0.300 / 0.100 | 2.50 / 1.25 |"
    assert lines[-1] == cells


def test_the_csv_reads_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "compare.csv", ROWS)
    lines = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [line["name"] for line in lines] == ["W4A4", "W1A1", "GATES"]
    assert float(lines[2]["spread_within"]) == 0.3 and lines[0]["spread_within"] == ""


def test_points_are_drawn_where_they_belong(tmp_path: Path) -> None:
    draw(tmp_path / "compare.png", ROWS)
    drawn = np.asarray(imread(tmp_path / "compare.png"))[:, :, :3] * 255
    # matplotlib's first colour are the gates, its second the uniform networks; the legend is drawn in both.
    orange = np.argwhere(np.abs(drawn - [255, 127, 14]).max(axis=2) < 3)
    blue = np.argwhere(np.abs(drawn - [31, 119, 180]).max(axis=2) < 3)
    assert len(orange) > 60 and len(blue) > 30
    # Rows from the top: W4A4 is the best, W1A1 the worst and the cheapest.
    assert orange[:, 0].max() > blue[:, 0].max()
    left = orange[orange[:, 0] == orange[:, 0].max()][:, 1].mean()
    assert left < blue[:, 1].mean()


def test_the_command_writes_all_three_files(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nn.clear_parameters()
    (tmp_path / "times.csv").write_text("name,one_ms,batch_ms\nCAMP_SP,2.5,1.25\n")
    arguments = [str(runs / "W4A4"), str(runs / "CAMP_SP"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--times", str(tmp_path / "times.csv")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.csv", "compare.md", "compare.png"}
    text = (tmp_path / "out" / "compare.md").read_text()
    assert text in capsys.readouterr().out
    assert text.splitlines()[2].startswith("| `W4A4` |") and "2.50 / 1.25" in text


def test_the_command_says_what_is_wrong(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs / "NOTHING"), "--out", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
