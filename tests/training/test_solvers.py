from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import training_batches
from nnmpq.training.graphs import build_training
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, build_groups, make_solver
from tests.training.tiny import MIXED, data, experiment


def start(**changes):
    chosen = experiment(**{**MIXED, **changes})
    graph = build_training(chosen, data(), build_scheme(chosen))
    return chosen, graph


def updates(graph, groups, count, epoch=0):
    batches = list(training_batches(data(), 32, seed=1, epoch=epoch))
    for images, labels in batches[:count]:
        graph.images.d, graph.labels.d = images, labels
        graph.loss.forward(clear_no_need_grad=True)
        groups.zero_grad()
        graph.loss.backward(clear_buffer=True)
        groups.update()


def snapshot():
    return {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}


def test_every_parameter_is_in_exactly_one_group():
    chosen, graph = start()
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True).groups
    weights = set(groups[WEIGHTS].solver.get_parameters())
    quantizers = set(groups[QUANTIZERS].solver.get_parameters())
    assert not weights & quantizers
    assert weights | quantizers == set(nn.get_parameters())
    assert quantizers == set(graph.quantized.parameters())
    assert "conv1/conv/W_quantizer/step" in quantizers and "conv1/bn/gamma" in weights


def test_fixed_bits_stay_while_weights_move():
    chosen, graph = start()
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=False)
    assert list(groups.groups) == [WEIGHTS]
    before = snapshot()
    updates(graph, groups, 2)
    after = snapshot()
    for name in graph.quantized.parameters():
        assert np.array_equal(before[name], after[name])
    assert not np.array_equal(before["conv1/conv/W"], after["conv1/conv/W"])


def test_quantizers_have_their_own_rate_and_no_decay():
    chosen, graph = start(quantizer_learning_rate=0.001)
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    assert groups.groups[QUANTIZERS].solver.learning_rate() == pytest.approx(0.001)
    assert groups.groups[WEIGHTS].solver.learning_rate() == pytest.approx(0.05)
    assert groups.groups[QUANTIZERS].weight_decay == 0.0
    groups.set_learning_rate(QUANTIZERS, 0.5)
    assert groups.groups[QUANTIZERS].solver.learning_rate() == pytest.approx(0.5)
    assert groups.groups[WEIGHTS].solver.learning_rate() == pytest.approx(0.05)


def test_the_clamp_is_on_only_with_a_target():
    for target, expected in ((20.0, True), (-1.0, False)):
        nn.clear_parameters()
        chosen, graph = start(target_weight_kbytes=target, target_activation_kbytes=-1.0)
        assert build_groups(chosen, graph.quantized.sites, learn_bits=True).groups[QUANTIZERS].clamp == expected


def test_an_update_is_momentum_with_decay():
    chosen, graph = start(weight_decay=0.25)
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    parameter = nn.get_parameters()["conv1/conv/W"]
    weight = np.array(parameter.d, np.float64)
    velocity = np.zeros_like(weight)
    for step in range(3):
        images, labels = next(training_batches(data(), 32, seed=1, epoch=step))
        graph.images.d, graph.labels.d = images, labels
        graph.loss.forward(clear_no_need_grad=True)
        groups.zero_grad()
        graph.loss.backward(clear_buffer=True)
        gradient = np.array(parameter.g, np.float64)
        velocity = 0.9 * velocity + 0.05 * (gradient + 0.25 * weight)
        weight = weight - velocity
        groups.update()
        np.testing.assert_allclose(parameter.d, weight, rtol=1e-4, atol=1e-6)


def test_one_update_moves_a_step_by_no_more_than_the_rate_times_itself():
    chosen, graph = start(initial_cost_lambda2=100.0)
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    before = snapshot()
    updates(graph, groups, 1)
    after = snapshot()
    moved = []
    for name in graph.quantized.sites:
        step = before[f"{name}_quantizer/step"]
        for key in ("step", "xmax"):
            change = np.abs(after[f"{name}_quantizer/{key}"] - before[f"{name}_quantizer/{key}"])
            assert change <= 0.05 * step * (1 + 1e-4) + 2e-5
            moved.append(float(change / step))
    assert max(moved) == pytest.approx(0.05, rel=1e-2), "the penalty is strong enough that the clamp must act"


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_restored_states_continue_to_the_same_bits(optimizer):
    chosen, graph = start(optimizer=optimizer)
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    updates(graph, groups, 3)
    states, values = groups.states(), snapshot()
    updates(graph, groups, 3, epoch=1)
    expected = snapshot()
    for name, variable in nn.get_parameters(grad_only=False).items():
        variable.d = values[name]
    fresh = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    fresh.restore(states)
    found = fresh.states()
    assert states.keys() == found.keys() and all(np.array_equal(states[k], found[k]) for k in states)
    updates(graph, fresh, 3, epoch=1)
    again = snapshot()
    assert all(np.array_equal(expected[name], again[name]) for name in expected)


def test_states_matter():
    chosen, graph = start()
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    updates(graph, groups, 3)
    states = groups.states()
    assert states["weights|conv1/conv/W|t"] == 3
    assert np.any(states["weights|conv1/conv/W|m"]) and np.any(states["quantizers|conv1/conv/W_quantizer/step|m"])


def test_states_of_another_solver_are_refused():
    chosen, graph = start()
    groups = build_groups(chosen, graph.quantized.sites, learn_bits=True)
    states = groups.states()
    missing = next(iter(states))
    del states[missing]
    with pytest.raises(ValueError, match="differ in weights"):
        groups.restore(states)


def test_momentum_keeps_the_old_rate_in_its_velocity():
    weight = nn.Variable.from_numpy_array(np.zeros(1, np.float32), need_grad=True)
    solver = make_solver("momentum", 1.0, 0.5)
    solver.set_parameters({"w": weight})
    weight.g = 1.0
    solver.update()
    solver.set_learning_rate(0.0)
    weight.g = 1.0
    solver.update()
    # v1 = 1 * 1, v2 = 0.5 * v1 + 0 * 1: the second update still moves, though the rate is zero.
    assert float(weight.d[0]) == -1.5
