"""Training of gates: what steers it, what adapts, what is refused."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.errors import InvalidValue
from nnmpq.dynamic import train as module
from nnmpq.dynamic.run import run_gates
from nnmpq.dynamic.train import DynamicResult, refuse_several, train_gates
from nnmpq.parallel import ALONE
from nnmpq.runs import load_data
from nnmpq.threads import set_threads
from nnmpq.training import parameters
from nnmpq.training.checkpoint import CheckpointError
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.machine import Machine
from tests.dynamic.digits import experiment

TINY = {"train_images": 100, "validation_images": 50, "test_images": 40}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    set_threads(1)
    yield
    set_threads(None)


def train(stage: str, folder: Path, *, resume: bool = False, **changes: object) -> DynamicResult:
    chosen = experiment(stage, **{**TINY, **changes})
    return train_gates(chosen, load_data(chosen), folder, quiet=True, resume=resume)


class Watched:
    """What the steering variables held at each update, and the energy that was read after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[dict[str, float]] = []
        self.numbers: list[np.ndarray] = []
        self.returns: list[np.ndarray] = []
        real = module.run_epoch

        def watched(graph: object, solvers: object, batches: object, number: int) -> object:
            return real(graph, solvers, self._each(batches), number)

        self.steering: object = None
        build = module.build_graphs

        def built(*arguments: object, **options: object) -> object:
            training, evaluation = build(*arguments, **options)
            self.steering = training.steering
            return training, evaluation

        monkeypatch.setattr(module, "run_epoch", watched)
        monkeypatch.setattr(module, "build_graphs", built)

    def _each(self, batches: object) -> Iterator[object]:
        steering = self.steering
        for batch in batches:
            found = {key: float(getattr(steering, key).d.ravel()[0]) for key in ("random_share", "alpha")}
            found["weight"] = float(steering.reward_weight.d)
            self.numbers.append(np.array(steering.numbers.d))
            self.returns.append(np.array(steering.greedy_returns.d))
            yield batch
            found["energy"] = float(steering.energy.d)
            self.seen.append(found)


def test_alpha_follows_the_energy_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    result = train("CAMP_RL", tmp_path, energy_target=0.75, energy_target_rate=0.5)
    alpha = experiment("CAMP_RL").alpha
    for seen in watched.seen:
        assert seen["alpha"] == pytest.approx(alpha, rel=1e-6)
        alpha = max(alpha + 0.5 * (seen["energy"] - 0.75), 0.0)
    assert result.history[-1].alpha == pytest.approx(alpha, rel=1e-6)
    per_epoch = np.array([seen["energy"] for seen in watched.seen]).reshape(2, -1).mean(axis=1)
    np.testing.assert_allclose([row.training_energy for row in result.history], per_epoch, rtol=1e-6)


def test_alpha_stays_where_there_is_no_target_and_never_falls_below_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    fixed = train("CAMP_RL", tmp_path / "fixed", energy_target=None, alpha=0.2, epochs=1)
    assert [seen["alpha"] for seen in watched.seen] == pytest.approx([0.2] * len(watched.seen))
    assert fixed.history[0].price == 0.0
    watched.seen.clear()
    generous = train("CAMP_SP", tmp_path / "generous", energy_target=1.2, energy_target_rate=50.0, epochs=1)
    assert watched.seen[-1]["alpha"] == 0.0 == generous.history[-1].alpha


def test_the_warm_up_draws_by_lot_and_rewards_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    result = train("CAMP_RL", tmp_path, gate_warmup_epochs=1, rl_weight=0.25)
    updates = len(watched.seen) // 2
    assert [seen["random_share"] for seen in watched.seen] == [1.0] * updates + [0.0] * updates
    assert [seen["weight"] for seen in watched.seen] == [0.0] * updates + [0.25] * updates
    # By lot nothing is adapted, and what comes of it is not kept.
    assert [seen["alpha"] for seen in watched.seen[: updates + 1]] == pytest.approx([0.3] * (updates + 1))
    assert result.best_epoch == 2


@pytest.mark.parametrize(("target", "weight"), [(0.8, 1.0), (None, 0.0)])
def test_supervised_gates_pay_for_energy_where_there_is_a_target(
    target: float | None, weight: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    train("CAMP_SP", tmp_path, energy_target=target, epochs=1)
    assert {seen["weight"] for seen in watched.seen} == {weight}


@pytest.mark.parametrize("baseline", ["none", "batch", "greedy"])
def test_greedy_returns_are_asked_for_where_they_are_the_baseline(
    baseline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    train("CAMP_RL", tmp_path, baseline=baseline, epochs=1)
    assert any(found.any() for found in watched.returns) is (baseline == "greedy")


def test_greedy_returns_are_the_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, checked = module._greedy_returns, []

    def check(run: object, images: np.ndarray, labels: np.ndarray, alpha: float) -> np.ndarray:
        found = real(run, images, labels, alpha)
        graph, savings = run.evaluation, run.training.savings
        chosen, entropies = np.array(graph.chosen.d), np.array(graph.cross_entropies.d[:, 0])
        for gate in range(3):
            expected = -(0.5 ** (3 - gate)) * entropies
            for later in range(gate, 3):
                saved = (chosen[:, later] * savings[later]).sum(axis=1)
                expected = expected + 0.5 ** (later - gate) * alpha * saved
            np.testing.assert_allclose(found[:, gate], expected, rtol=1e-5)
        checked.append(len(found))
        return found

    monkeypatch.setattr(module, "_greedy_returns", check)
    train("CAMP_RL", tmp_path, gamma=0.5, epochs=1)
    assert checked == [50, 50]


def test_draws_depend_on_seed_and_epoch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train("CAMP_RL", tmp_path / name, seed=seed)
    one, two, three = (watched.numbers[first : first + 4] for first in (0, 4, 8))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one[0], three[0])
    assert not np.array_equal(one[0], one[2]), "the second epoch draws anew"
    assert all(((0 <= numbers) & (numbers < 1)).all() for numbers in watched.numbers)


def test_what_is_kept_is_the_best_epoch_and_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, after = module.choices, []

    def spoiled(*arguments: object) -> object:
        found = real(*arguments)
        after.append(parameters.current())
        # The second validation finds nothing right.
        return attrs.evolve(found, answers=found.labels + 1) if len(after) == 2 else found

    monkeypatch.setattr(module, "choices", spoiled)
    result = train("CAMP_SP", tmp_path, energy_target=None)
    assert result.best_epoch == 1 and len(after) == 3
    assert result.validation_accuracy == 1 - result.history[0].validation_error
    first, second, kept = after
    for name, values in kept.items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)
    assert any(np.abs(values - second[name]).max() > 0 for name, values in kept.items())


def test_the_price_is_stored_with_the_weights(tmp_path: Path) -> None:
    result = train("CAMP_SP", tmp_path, energy_target=0.75, epochs=1)
    price = float(result.evaluation.price.d[0, 0])
    assert price == pytest.approx(result.history[0].price)
    nn.clear_parameters()
    nn.load_parameters(str(tmp_path / "best.h5"))
    assert float(nn.get_parameters(grad_only=False)["gates/price"].d[0, 0]) == price


def test_a_finished_run_that_is_resumed_trains_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = train("CAMP_SP", tmp_path, epochs=1)
    monkeypatch.setattr(module, "run_epoch", None)
    two = train("CAMP_SP", tmp_path, epochs=1, resume=True)
    assert two.history == one.history and two.test_accuracy == one.test_accuracy


@pytest.mark.parametrize("changes", [{"energy_target": 0.9}, {"rl_weight": 0.5}, {"seed": 9}, {"train_images": 150}])
def test_a_checkpoint_of_another_experiment_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    train("CAMP_RL", tmp_path, epochs=1)
    with pytest.raises(CheckpointError):
        train("CAMP_RL", tmp_path, **{"epochs": 1, "resume": True, **changes})


def test_without_resume_the_old_run_is_gone(tmp_path: Path) -> None:
    train("CAMP_SP", tmp_path, epochs=2)
    train("CAMP_SP", tmp_path, epochs=1)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1"]


def test_too_few_images_for_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch_size = 101: there are only 100"):
        train("CAMP_SP", tmp_path, batch_size=101)


def test_a_run_whose_every_epoch_is_too_dear_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "meet_target", lambda *_, **__: 0.0)
    chosen = experiment("CAMP_SP", **{**TINY, "epochs": 1})
    real = module.choices

    def dear(*arguments: object) -> object:
        found = real(*arguments)
        return attrs.evolve(found, energy=found.energy + 1)

    monkeypatch.setattr(module, "choices", dear)
    with pytest.raises(BudgetError, match="no epoch met energy_target = 0.8"):
        train_gates(chosen, load_data(chosen), tmp_path, quiet=True)


@attrs.frozen
class _Two:
    """Stands for a communicator of two processes."""

    size: int = 2
    rank: int = 0


def test_several_processes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    chosen = experiment("CAMP_SP")
    two = attrs.evolve(Machine(), communicator=_Two())
    with pytest.raises(TrainingError, match="one process, not in 2: leave --processes"):
        run_gates(chosen, tmp_path, machine=two)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError, match="--threads N"):
        train_gates(chosen, load_data(chosen), tmp_path / "run", machine=two)
    assert list(tmp_path.iterdir()) == []


def test_one_process_is_not_refused() -> None:
    refuse_several(None)
    refuse_several(Machine())
    assert ALONE.size == 1


def test_a_warm_up_as_long_as_the_run_leaves_gates_nothing() -> None:
    with pytest.raises(InvalidValue, match="no epoch of 2"):
        experiment("CAMP_SP", gate_warmup_epochs=2)
