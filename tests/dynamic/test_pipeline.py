"""All stages on a few digits: uniform, supervised, reinforcement; folders, resuming, the file and its runner."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nnmpq.dynamic.runner as runner_module
from nnmpq.config.errors import InvalidValue
from nnmpq.dynamic import train as training_module
from nnmpq.dynamic.evaluate import choices, meet_target
from nnmpq.dynamic.run import run_gates
from nnmpq.dynamic.runner import GatedRunner
from nnmpq.dynamic.skip import skipping
from nnmpq.dynamic.train import DynamicResult, train_gates
from nnmpq.runs import load_data
from nnmpq.threads import set_threads
from nnmpq.training import parameters
from nnmpq.training.errors import BudgetError
from tests.dynamic.digits import experiment


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    set_threads(1)
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def reinforced(runs: Path) -> DynamicResult:
    found = experiment("CAMP_RL", weightfile=str(runs / "CAMP_SP" / "best.h5"))
    return run_gates(found, runs, quiet=True)


def test_every_stage_leaves_its_folder_and_meets_its_target(runs: Path, reinforced: DynamicResult) -> None:
    for stage in ("CAMP_SP", "CAMP_RL"):
        names = {path.name for path in (runs / stage).iterdir()}
        assert names >= {"best.h5", "metrics.csv", "checkpoint", "config.cfg", "model.nnp", "result.json"}
        assert names >= {"choices.csv", "choices.png", "examples.png", "energy.csv", "energy.png"}
        result = json.loads((runs / stage / "result.json").read_text())
        rows = table(runs / stage / "metrics.csv")
        assert len(rows) == 2
        best = rows[result["best_epoch"] - 1]
        assert float(best["validation_energy"]) <= 0.8 + 0.01
        assert result["energy"] == pytest.approx(0.8, abs=0.05)
        assert result["size_kib"]["gates"] > 0
    # The warm-up by lot is no model to keep.
    assert json.loads((runs / "CAMP_SP" / "result.json").read_text())["best_epoch"] == 2


def test_the_energy_is_what_the_choices_cost(reinforced: DynamicResult) -> None:
    account, test = reinforced.training.account, reinforced.test
    always = account.always.energy + sum(g.energy for g in account.gates) + sum(p[0].energy for p in account.paths)
    wide = np.array([paths[1].energy for paths in account.paths])
    np.testing.assert_allclose(test.energy, (always + test.chosen @ wide) / account.uniform(1).energy)


def test_gates_depend_on_their_input(reinforced: DynamicResult) -> None:
    deviations = reinforced.test.probabilities[:, :, 1].std(axis=0)
    assert reinforced.test.summary()["spread_within"] == pytest.approx(deviations.mean(), rel=1e-5)
    assert (deviations > 0.01).all()
    # Some block sends samples of the same data set both ways.
    shares = reinforced.test.chosen.mean(axis=0)
    assert ((shares > 0.05) & (shares < 0.95)).any()


def test_the_shares_by_class_add_up_to_the_whole(runs: Path, reinforced: DynamicResult) -> None:
    rows = table(runs / "CAMP_RL" / "choices.csv")
    counts = np.bincount(reinforced.test.labels, minlength=10)
    for number, row in enumerate(rows):
        by_class = np.array([float(row[f"class_{label}"]) if counts[label] else 0.0 for label in range(10)])
        assert float(row["widest"]) == pytest.approx((by_class * counts).sum() / counts.sum(), abs=2e-4)
        assert float(row["widest"]) == pytest.approx(reinforced.test.chosen[:, number].mean(), abs=1e-4)


def test_the_uniform_network_is_a_point_of_the_plot(runs: Path, reinforced: DynamicResult) -> None:
    rows = {row["name"]: row for row in table(runs / "CAMP_RL" / "energy.csv")}
    assert float(rows["W4A4"]["energy"]) == pytest.approx(1.0)
    uniform = json.loads((runs / "W4A4" / "result.json").read_text())
    assert float(rows["W4A4"]["accuracy"]) == pytest.approx(uniform["validation_accuracy"], abs=1e-5)
    assert float(rows["price 30"]["energy"]) == pytest.approx(reinforced.training.account.least_share(), abs=1e-4)


def test_the_file_runs_with_nnabla_alone_and_skips(runs: Path, reinforced: DynamicResult, tmp_path: Path) -> None:
    data = load_data(experiment("CAMP_RL"))
    images = (data.test.images[:8].astype(np.float32) - data.offset) / np.float32(data.scale)
    expected, taken = skipping(reinforced.evaluation.network)(images)
    model = GatedRunner(str(runs / "CAMP_RL" / "model.nnp"))
    for image, logits, choice in zip(images, expected, taken):
        found, bits = model(image)
        assert bits == [(1, 4)[k] for k in choice]
        np.testing.assert_allclose(found, logits, atol=1e-4)
    wide = sum(count for name, count in model.calls.items() if name.endswith("_4bit"))
    assert wide == int(taken.sum())
    np.save(tmp_path / "images.npy", images)
    command = [
        sys.executable,
        runner_module.__file__,
        str(runs / "CAMP_RL" / "model.nnp"),
        str(tmp_path / "images.npy"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = [line for line in done.stdout.splitlines() if ": class " in line]
    assert [int(line.split("class ")[1].split(",")[0]) for line in lines] == expected.argmax(axis=1).tolist()


def test_skipping_equals_what_evaluation_computes(reinforced: DynamicResult) -> None:
    graph = reinforced.evaluation
    network = graph.network
    rng = np.random.RandomState(0)
    network.images.d = rng.randn(*network.images.shape)
    network.output.forward()
    logits, taken = skipping(network)(network.images.d)
    np.testing.assert_array_equal(logits, network.output.d)
    assert 0 < taken.mean() < 1


class _Killed(Exception):
    """Stands for SIGKILL: nothing is tidied up."""


@pytest.mark.parametrize("stage", ["CAMP_SP", "CAMP_RL"])
def test_a_killed_run_goes_on_to_the_same_bits(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = experiment(stage, train_images=100, gate_warmup_epochs=int(stage == "CAMP_SP"))
    data = load_data(whole)
    one = train_gates(whole, data, tmp_path / "one", quiet=True)
    expected = parameters.current()
    real, calls = training_module.run_epoch, []

    def dies(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise _Killed
        return real(*arguments, **options)

    monkeypatch.setattr(training_module, "run_epoch", dies)
    with pytest.raises(_Killed):
        train_gates(whole, data, tmp_path / "two", quiet=True)
    monkeypatch.setattr(training_module, "run_epoch", real)
    two = train_gates(whole, data, tmp_path / "two", resume=True, quiet=True)
    assert two.history == one.history
    found = parameters.current()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_target_below_what_is_always_paid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="least that is reachable is 0.6"):
        train_gates(experiment("CAMP_SP", energy_target=0.3), load_data(experiment("CAMP_SP")), tmp_path)


def test_the_price_meets_any_target_in_reach(reinforced: DynamicResult) -> None:
    data = load_data(experiment("CAMP_RL"))
    graph, account = reinforced.evaluation, reinforced.training.account
    own = graph.price.d.copy()
    try:
        for target in (0.75, 0.95):
            meet_target(graph, data, data.validation, account, target)
            found = choices(graph, data, data.validation, account)
            assert target - 0.1 < found.energy.mean() <= target
        with pytest.raises(ValueError, match="narrowest paths"):
            meet_target(graph, data, data.validation, account, 0.2)
    finally:
        graph.price.d = own


def test_the_published_recipe_trains(runs: Path, tmp_path: Path) -> None:
    published = experiment(
        "CAMP_RL",
        faithful=True,
        baseline="none",
        gate_entropy=0.0,
        gate_diversity=0.0,
        gate_exploration=0.0,
        energy_target=None,
        epochs=1,
        train_images=100,
        weightfile=str(runs / "W4A4" / "best.h5"),
    )
    result = train_gates(published, load_data(published), tmp_path, quiet=True)
    assert result.history[0].alpha == published.alpha
    np.testing.assert_allclose(result.training.savings, [[1 / 3, 0]] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"w_quantize": None}, "w_quantize"),
        ({"precisions": (4, 1)}, "precisions"),
        ({"gate_warmup_epochs": 2}, "gate_warmup_epochs"),
        ({"energy_per_mac": ("4",)}, "energy_per_mac"),
        ({"gate_training": None}, "energy_target"),
        ({"gate_training": "supervise"}, "gate_training"),
        ({"baseline": "mean"}, "baseline"),
        ({"learning_rate_decays": ("0.1",)}, "learning_rate_decays"),
        ({"target_weight_kbytes": 9.0}, "target_weight_kbytes"),
    ],
)
def test_keys_that_contradict_are_refused(changes: dict[str, object], key: str) -> None:
    with pytest.raises(InvalidValue, match="nearest|needed") as error:
        experiment("CAMP_SP", **changes)
    assert error.value.key == key
