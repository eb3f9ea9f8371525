"""Training and evaluation graphs: what the loss is made of, and what choices are worth."""

from __future__ import annotations

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.data import DataSet
from nnmpq.dynamic.energy import PUBLISHED, Account, Work
from nnmpq.dynamic.graphs import (
    DynamicTraining,
    build_evaluation,
    build_training,
    relative_cost,
    savings_of,
    settings_of,
    table_of,
)
from nnmpq.onednn.library import missing
from nnmpq.runs import load_data
from tests.dynamic.digits import experiment


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data(experiment("CAMP_SP"))


def training(stage: str, data: DataSet, accelerate: bool = False, **changes: object) -> DynamicTraining:
    nn.clear_parameters()
    made = build_training(experiment(stage, batch_size=8, **changes), data, accelerate=accelerate)
    rng = np.random.RandomState(0)
    made.graph.images.d = rng.randn(*made.graph.images.shape)
    made.graph.labels.d = rng.randint(0, 10, (8, 1))
    made.steering.numbers.d = rng.rand(8, 3)
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if name.endswith("gate/decide/affine/W"):
            parameter.d = rng.randn(*parameter.shape)
    return made


def forward(made: DynamicTraining) -> dict[str, float]:
    made.graph.loss.forward(clear_no_need_grad=True)
    terms = {name: float(v.d) for name, v in made.graph.penalties.items()}
    return {"loss": float(made.graph.loss.d), "cross_entropy": float(made.graph.cross_entropy.d), **terms}


@pytest.mark.parametrize("stage", ["CAMP_SP", "CAMP_RL"])
def test_the_loss_is_the_sum_of_its_terms(stage: str, data: DataSet) -> None:
    made = training(stage, data)
    made.steering.alpha.d, made.steering.reward_weight.d = 0.5, 0.7
    found = forward(made)
    loss = found.pop("loss")
    assert loss == pytest.approx(sum(found.values()), rel=1e-5)
    assert len(found) == {"CAMP_SP": 3, "CAMP_RL": 5}[stage]


def test_supervised_pays_alpha_times_the_energy(data: DataSet) -> None:
    made = training("CAMP_SP", data)
    for alpha, weight in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.0), (2.0, 1.0)):
        made.steering.alpha.d, made.steering.reward_weight.d = alpha, weight
        assert forward(made)["energy"] == pytest.approx(alpha * weight * float(made.steering.energy.d), rel=1e-6)


def test_the_energy_in_the_graph_is_the_accounts(data: DataSet) -> None:
    made = training("CAMP_SP", data)
    for block in made.network.blocks:
        block.decision.chosen.persistent = True
    forward(made)
    chosen = np.stack([block.decision.chosen.d.argmax(axis=1) for block in made.network.blocks], axis=1)
    assert 0 < chosen.mean() < 1
    assert float(made.steering.energy.d) == pytest.approx(made.account.share(chosen).mean(), rel=1e-5)


def test_reinforcement_watches_the_expected_energy(data: DataSet) -> None:
    made = training("CAMP_RL", data)
    for block in made.network.blocks:
        block.decision.probabilities.persistent = True
    found = forward(made)
    p = np.stack([block.decision.probabilities.d[:, 1] for block in made.network.blocks], axis=1)
    expected = made.account.least_share() + (p.mean(axis=0) * made.account.extra()[:, 1]).sum()
    assert float(made.steering.energy.d) == pytest.approx(expected, rel=1e-5)
    assert found["watched"] == 0.0


def test_rewards_weigh_as_they_are_told(data: DataSet) -> None:
    made = training("CAMP_RL", data, baseline="none")
    made.steering.alpha.d = 0.4
    found = []
    for weight in (0.0, 1.0, 3.0):
        made.steering.reward_weight.d = weight
        found.append(forward(made)["rewards"])
    assert found[0] == 0
    assert found[2] == pytest.approx(3 * found[1], rel=1e-5)
    assert found[1] != 0


def test_a_baseline_changes_the_loss_by_its_own_share(data: DataSet) -> None:
    losses = {}
    for baseline in ("none", "batch", "greedy"):
        made = training("CAMP_RL", data, baseline=baseline)
        made.steering.reward_weight.d, made.steering.alpha.d = 1.0, 0.4
        # A greedy return that all samples share is no other than the batch's mean.
        made.steering.greedy_returns.d = 7.0
        losses[baseline] = forward(made)["rewards"]
    assert losses["batch"] == pytest.approx(losses["greedy"], abs=1e-5)
    assert abs(losses["batch"] - losses["none"]) > 1e-3


def test_entropy_and_diversity_are_taken_off(data: DataSet) -> None:
    made = training("CAMP_RL", data, gate_entropy=0.5, gate_diversity=0.25)
    for block in made.network.blocks:
        block.decision.probabilities.persistent = True
    found = forward(made)
    p = np.stack([np.array(block.decision.probabilities.d, np.float64) for block in made.network.blocks], axis=1)
    own = -(p * np.log(p)).sum(axis=2).mean()
    mean = p.mean(axis=0)
    together = -(mean * np.log(mean)).sum(axis=1).mean()
    assert found["entropy"] == pytest.approx(-0.5 * own, rel=1e-4)
    assert found["diversity"] == pytest.approx(-0.25 * (together - own), rel=1e-3)
    assert found["diversity"] < 0


@pytest.mark.skipif(bool(missing()), reason="oneDNN is not installed")
@pytest.mark.parametrize("stage", ["CAMP_SP", "CAMP_RL"])
def test_accelerated_it_is_the_same_loss(stage: str, data: DataSet) -> None:
    found = []
    for accelerate in (False, True):
        made = training(stage, data, accelerate)
        made.steering.alpha.d, made.steering.reward_weight.d = 0.5, 0.7
        values = forward(made)
        made.graph.loss.backward(clear_buffer=True)
        found.append({**values, "energy read": float(made.steering.energy.d)})
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-4)


def test_both_graphs_share_their_parameters(data: DataSet) -> None:
    nn.clear_parameters()
    start = experiment("CAMP_SP", batch_size=8)
    build_training(start, data)
    before = set(nn.get_parameters(grad_only=False))
    evaluation = build_evaluation(start, data)
    assert set(nn.get_parameters(grad_only=False)) - before == {"gates/price"}
    assert float(evaluation.price.d[0, 0]) == 0
    assert not nn.get_parameters(grad_only=False)["gates/price"].need_grad


def test_costs_are_shares_of_the_widest() -> None:
    three = experiment("CAMP_SP", precisions=(1, 2, 4))
    table = table_of(three)
    assert table == PUBLISHED
    np.testing.assert_allclose(relative_cost(three), [0, np.sqrt(0.075), 1], rtol=1e-6)
    # Before the block the narrow path is paid where it runs alone.
    np.testing.assert_allclose(
        relative_cost(attrs.evolve(three, pre_gate=True)),
        [0, (np.sqrt(0.075) - 0.075) / (1 - 0.075), 1],
        rtol=1e-6,
    )


ACCOUNT = Account(Work(10.0), [Work(1.0)] * 2, [[Work(1.0), Work(10.0)], [Work(2.0), Work(30.0)]])


def test_savings_of_all_narrow_paths_are_one() -> None:
    found = savings_of(ACCOUNT, faithful=False)
    np.testing.assert_allclose(found, [[10 / 40, 0], [30 / 40, 0]])
    published = savings_of(ACCOUNT, faithful=True)
    np.testing.assert_allclose(published, [[1 / 2, 0], [1 / 2, 0]])
    for table in (found, published):
        assert table[:, 0].sum() == pytest.approx(1)


def test_a_width_between_saves_its_part() -> None:
    account = Account(Work(1.0), [Work(0.0)], [[Work(1.0), Work(4.0), Work(16.0)]])
    np.testing.assert_allclose(savings_of(account, faithful=False), [[1, 1 - 4 / 16, 0]])


def test_faithful_settings_are_the_published_ones() -> None:
    ours, published = (settings_of(experiment("CAMP_SP", faithful=faithful)) for faithful in (False, True))
    assert (ours.detach, ours.quantize_gate_input) == (True, True)
    assert (published.detach, published.quantize_gate_input) == (False, False)
    assert ours.precisions == published.precisions == (1, 4)
