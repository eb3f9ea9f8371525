from __future__ import annotations

import csv
import logging

import nnabla as nn
import numpy as np
import pytest

from nnmpq.training import BudgetError, CheckpointError, NonFiniteLoss, TrainingError, train
from nnmpq.training import loop as loop_module
from nnmpq.training import parameters as parameter_files
from nnmpq.training.evaluate import evaluate
from nnmpq.training.loop import CALIBRATION_IMAGES
from tests.training.tiny import MIXED, data, experiment


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_of(folder):
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def splits(monkeypatch):
    """Note which part of the data each evaluation reads."""
    seen: list[str] = []

    def watched(graph, images, split, communicator, feed):
        parts = {"train": images.train, "validation": images.validation, "test": images.test}
        seen.extend(name for name, part in parts.items() if part is split)
        return evaluate(graph, images, split, communicator, feed)

    monkeypatch.setattr(loop_module, "evaluate", watched)
    return seen


def test_a_budget_run_learns_projects_and_finetunes(tmp_path, splits):
    result = train(experiment(**MIXED), data(), tmp_path, quiet=True)
    rows = rows_of(tmp_path)
    assert [(r["epoch"], r["phase"]) for r in rows] == [
        ("1", "learn"),
        ("2", "learn"),
        ("2", "project"),
        ("3", "finetune"),
    ]
    assert splits == ["validation"] * 4 + ["test"], "the test images are read once, at the end"
    assert all(float(r["weights_kib"]) <= 20 and float(r["activations_max_kib"]) <= 0.4 for r in rows[2:])
    assert result.cost.weights_kib <= 20 and result.cost.activations_max_kib <= 0.4
    assert rows[2]["weights_kib"] == rows[3]["weights_kib"], "bits are fixed after the projection"
    assert [float(r["learning_rate"]) for r in (rows[0], rows[1], rows[3])] == pytest.approx([0.05, 0.005, 0.005])
    assert rows[3]["quantizer_learning_rate"] == ""


def test_the_result_is_the_best_eligible_epoch_with_its_parameters_in_place(tmp_path):
    images = data()
    result = train(experiment(**MIXED, finetune_epochs=3), images, tmp_path, quiet=True)
    eligible = [
        row for row in rows_of(tmp_path) if float(row["weights_kib"]) <= 20 and float(row["activations_max_kib"]) <= 0.4
    ]
    best = min(eligible, key=lambda r: (float(r["validation_error"]), float(r["validation_cross_entropy"])))
    assert result.best_epoch == int(best["epoch"])
    assert result.validation_accuracy == 1 - float(best["validation_error"])
    assert result.cost.weights_kib == float(best["weights_kib"])
    quantized = result.quantized
    for split, accuracy in ((images.validation, result.validation_accuracy), (images.test, result.test_accuracy)):
        x = next(v for v in inputs_of(quantized.output))
        right = 0
        for first in range(0, 40, 8):
            batch = np.zeros(x.shape, np.float32)
            batch[:8] = (split.images[first : first + 8].astype(np.float32) - 8) / 8
            x.d = batch
            quantized.output.forward()
            right += int(np.sum(quantized.output.d[:8].argmax(axis=1) == split.labels[first : first + 8]))
        assert right / 40 == pytest.approx(accuracy)
    assert result.policy.bits() == quantized.bit_numbers()
    assert result.policy.budget == {"weights_kib": 20.0, "activations_max_kib": 0.4}


def inputs_of(output):
    """Images of a graph: the leaf that is no parameter."""
    found: list[nn.Variable] = []
    known = {v.data for v in nn.get_parameters(grad_only=False).values()}

    def look(function):
        found.extend(v for v in function.inputs if v.parent is None and v.data not in known and v.ndim == 4)

    output.visit(look)
    return found


def test_without_a_budget_there_is_one_phase(tmp_path):
    result = train(experiment(), data(), tmp_path, quiet=True)
    assert [r.phase for r in result.history] == ["learn", "learn"]
    # Weights and biases at 32 bits.
    elements = sum(int(np.prod(s.shape)) for s in result.quantized.network.sites() if s.role != "activation")
    assert result.cost.weights_kib == elements * 32 / 8 / 1024


def test_float_training_learns_and_quantized_training_from_it_keeps_the_accuracy(tmp_path):
    images = data(640)
    start = train(experiment(epochs=8, milestones=(), augmentation="none"), images, tmp_path / "float", quiet=True)
    first, last = (float(row.cross_entropy or 0) for row in (start.history[0], start.history[-1]))
    assert 0 < last < 0.5 * first and start.test_accuracy > 0.6
    weightfile = str(tmp_path / "float" / "best.h5")
    chosen = experiment(**MIXED, weightfile=weightfile, initial_learning_rate=0.01, augmentation="none")
    result = train(chosen, images, tmp_path / "mixed", quiet=True)
    assert result.test_accuracy > start.test_accuracy - 0.2 and result.cost.weights_kib <= 20


def test_a_finished_run_only_reports(tmp_path, splits, monkeypatch):
    first = train(experiment(**MIXED), data(), tmp_path, quiet=True)
    before = files(tmp_path)
    splits.clear()
    monkeypatch.setattr(loop_module, "run_epoch", None)
    again = train(experiment(**MIXED), data(), tmp_path, resume=True, quiet=True)
    assert splits == []
    assert (again.test_accuracy, again.validation_accuracy, again.best_epoch, again.cost) == (
        first.test_accuracy,
        first.validation_accuracy,
        first.best_epoch,
        first.cost,
    )
    assert again.policy == first.policy and again.history == first.history
    assert files(tmp_path) == before


def test_runs_in_one_process_do_not_mix(tmp_path):
    train(experiment(**MIXED), data(), tmp_path / "a", quiet=True)
    train(experiment(seed=5, shortcut_type="b"), data(), tmp_path / "other", quiet=True)
    train(experiment(**MIXED), data(), tmp_path / "b", quiet=True)
    assert (tmp_path / "a" / "best.h5").read_bytes() == (tmp_path / "b" / "best.h5").read_bytes()
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_a_run_in_a_scope_leaves_the_others_parameters_alone(tmp_path):
    kept = nn.parameter.get_parameter_or_create("mine/W", (2,))
    with nn.parameter_scope("run"):
        train(experiment(epochs=1, milestones=()), data(), tmp_path, quiet=True)
        assert "conv1/conv/W" in nn.get_parameters()
    assert nn.get_parameters()["mine/W"].data is kept.data or np.array_equal(nn.get_parameters()["mine/W"].d, kept.d)


def test_a_changed_experiment_is_refused(tmp_path):
    train(experiment(epochs=1, milestones=()), data(), tmp_path, quiet=True)
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match="batch_size was 32, is 16; seed was 313, is 7"):
        train(experiment(epochs=1, milestones=(), seed=7, batch_size=16), data(), tmp_path, resume=True, quiet=True)
    assert files(tmp_path) == before


def test_without_resume_a_run_begins_anew(tmp_path):
    train(experiment(epochs=1, milestones=(), seed=7), data(), tmp_path, quiet=True)
    train(experiment(epochs=1, milestones=()), data(), tmp_path, quiet=True)
    train(experiment(epochs=1, milestones=()), data(), tmp_path / "fresh", quiet=True)
    assert (tmp_path / "best.h5").read_bytes() == (tmp_path / "fresh" / "best.h5").read_bytes()
    assert len(rows_of(tmp_path)) == 1


def test_a_missing_best_is_named(tmp_path):
    train(experiment(epochs=1, milestones=()), data(), tmp_path, quiet=True)
    (tmp_path / "best.h5").unlink()
    with pytest.raises(TrainingError, match="best.h5: cannot be read"):
        train(experiment(epochs=1, milestones=()), data(), tmp_path, resume=True, quiet=True)


def test_an_unreachable_budget_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "run_epoch", None)
    with pytest.raises(BudgetError, match="weights_kib 1 is wanted"):
        train(experiment(**{**MIXED, "target_weight_kbytes": 1.0}), data(), tmp_path, quiet=True)


def test_too_few_images_for_a_batch_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="batch_size = 256: there are only 160 training images"):
        train(experiment(batch_size=256), data(), tmp_path, quiet=True)


def test_a_weightfile_of_other_shapes_is_refused(tmp_path):
    train(experiment(epochs=1, milestones=()), data(), tmp_path, quiet=True)
    nn.clear_parameters()
    nn.parameter.get_parameter_or_create("conv1/conv/W", (1, 2, 3))
    parameter_files.save_h5(tmp_path / "odd.h5")
    with pytest.raises(TrainingError, match="weightfile = .*odd.h5"):
        train(experiment(weightfile=str(tmp_path / "odd.h5")), data(), tmp_path / "run", quiet=True)


def test_a_diverging_run_stops_at_once(tmp_path):
    with pytest.raises(NonFiniteLoss, match="epoch 1, iteration"):
        train(experiment(initial_learning_rate=1e30), data(), tmp_path, quiet=True)


def test_the_projection_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="nnmpq")
    train(experiment(**{**MIXED, "target_activation_kbytes": 0.26}), data(), tmp_path, quiet=True)
    assert any("projection: conv1/conv/relu from" in message for message in caplog.messages)


def test_no_finetuning_still_gives_a_model_that_meets_the_budget(tmp_path):
    result = train(experiment(**MIXED, finetune_epochs=0), data(), tmp_path, quiet=True)
    assert result.history[-1].phase == "project" and result.cost.activations_max_kib <= 0.4


def test_without_a_budget_finetuning_fixes_steps_and_ranges(tmp_path):
    fixed = dict(w_quantize="parametric_fp_b_xmax", a_quantize="parametric_fp_b_xmax_relu")
    result = train(experiment(**fixed, finetune_epochs=2), data(), tmp_path, quiet=True)
    assert [row.phase for row in result.history] == ["learn", "learn", "finetune", "finetune"]
    assert [row.quantizer_learning_rate is None for row in result.history] == [False, False, True, True]


def test_finetuning_has_its_own_rate(tmp_path):
    result = train(experiment(**MIXED, finetune_learning_rate=0.125), data(), tmp_path, quiet=True)
    assert result.history[-1].learning_rate == 0.125


def test_series_go_where_they_are_wanted(tmp_path):
    chosen = experiment(epochs=1, milestones=())
    train(chosen, data(), tmp_path / "run", quiet=True, monitor_folder=tmp_path / "series")
    assert (tmp_path / "series" / "loss.series.txt").is_file() and not (tmp_path / "run" / "monitor").exists()


def test_calibration_is_a_modest_number_of_images():
    assert 64 <= CALIBRATION_IMAGES <= 5000
