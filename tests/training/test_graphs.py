from __future__ import annotations

import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import training_batches
from nnmpq.training.graphs import build_evaluation, build_training, penalty
from tests.training.tiny import MIXED, data, experiment


def build(**changes):
    chosen = experiment(**changes)
    return build_training(chosen, data(), build_scheme(chosen))


def fill(graph, epoch=0):
    images, labels = next(training_batches(data(), 32, seed=1, epoch=epoch))
    graph.images.d, graph.labels.d = images, labels


@pytest.mark.parametrize(("kib", "target"), [(131.03, 70.1), (70.2, 70.1), (70.1, 70.1), (12.0, 70.1)])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_penalty_and_its_gradient_are_the_formula(kib, target, weight):
    size = nn.Variable.from_numpy_array(np.float32(kib), need_grad=True)
    size.grad.zero()
    term = penalty(size, target, weight)
    term.forward()
    term.backward()
    excess = max(float(np.float32(kib)) - target, 0.0)
    assert float(term.d) == pytest.approx(weight * excess**2, rel=1e-3, abs=1e-9)
    assert float(size.g) == pytest.approx(2 * weight * excess, rel=1e-3, abs=1e-4)


def test_penalty_of_a_number_is_a_constant():
    term = penalty(80.0, 70.0, 0.1)
    term.forward()
    assert float(term.d) == pytest.approx(10.0)


def kib_by_hand(graph):
    """Sizes from shapes and bits, without the code under test."""
    bits = graph.quantized.bit_numbers()
    weights, activations = 0.0, []
    parameters = nn.get_parameters(grad_only=False)
    for name, width in bits.items():
        if name.endswith(("/W", "/b")):
            weights += width * parameters[name].size / 8192
        else:
            shape = graph.quantized.sites[name].output.shape[1:]
            activations.append(width * int(np.prod(shape)) / 8192)
    return weights, activations


@pytest.mark.parametrize("kind", ["max", "sum"])
def test_loss_is_cross_entropy_plus_penalties(kind):
    graph = build(**{**MIXED, "target_activation_type": kind, "initial_cost_lambda3": 2.0})
    fill(graph)
    graph.loss.forward(clear_no_need_grad=True)
    weights, activations = kib_by_hand(graph)
    used = max(activations) if kind == "max" else sum(activations)
    expected = {"weights": 0.1 * (weights - 20.0) ** 2, "activations": 2.0 * (used - 0.4) ** 2}
    assert weights > 20 and used > 0.4, "both penalties must act, or nothing is tested"
    assert {k: float(v.d) for k, v in graph.penalties.items()} == pytest.approx(expected, rel=1e-4)
    total = float(graph.cross_entropy.d) + sum(expected.values())
    assert float(graph.loss.d) == pytest.approx(total, rel=1e-4)


def test_loss_without_targets_is_cross_entropy_of_the_logits():
    graph = build()
    assert graph.penalties == {}
    fill(graph)
    graph.loss.forward(clear_no_need_grad=True)
    logits, labels = graph.quantized.output.d.astype(np.float64), graph.labels.d.astype(int)[:, 0]
    shifted = logits - logits.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(32), labels] - np.log(np.exp(shifted).sum(axis=1))
    assert float(graph.loss.d) == pytest.approx(-likelihood.mean(), rel=1e-5)


def test_penalty_reaches_the_quantizers_only_while_the_target_is_missed():
    def step_gradients(target):
        nn.clear_parameters()
        graph = build(**{**MIXED, "target_weight_kbytes": target, "target_activation_kbytes": -1.0})
        fill(graph)
        parameters = graph.quantized.parameters()
        name = next(n for n in parameters if n.endswith("W_quantizer/xmax"))
        for variable in parameters.values():
            variable.grad.zero()
        graph.loss.forward(clear_no_need_grad=True)
        graph.loss.backward(clear_buffer=True)
        return float(parameters[name].g)

    # Within its target the penalty adds nothing: the same gradient as with a target yet farther away.
    assert step_gradients(500.0) == step_gradients(1000.0)
    assert step_gradients(20.0) > step_gradients(500.0)


def test_what_is_read_survives_the_backward_pass():
    graph = build(**MIXED)
    fill(graph)
    graph.loss.forward(clear_no_need_grad=True)
    before = [float(v.d) for v in (graph.loss, graph.cross_entropy, *graph.penalties.values())]
    graph.loss.backward(clear_buffer=True)
    after = [float(v.d) for v in (graph.loss, graph.cross_entropy, *graph.penalties.values())]
    assert before == after


def test_evaluation_shares_every_parameter_with_training():
    chosen = experiment(**MIXED)
    training = build_training(chosen, data(), build_scheme(chosen))
    names = set(nn.get_parameters(grad_only=False))
    evaluation = build_evaluation(chosen, data(), build_scheme(chosen))
    assert set(nn.get_parameters(grad_only=False)) == names
    assert list(evaluation.quantized.sites) == list(training.quantized.sites)
    for name, variable in training.quantized.parameters().items():
        variable.d = variable.d * 0.5
        assert evaluation.quantized.parameters()[name].d == variable.d


def test_equal_seeds_give_equal_weights():
    def first_weight(seed):
        nn.clear_parameters()
        build(seed=seed)
        return np.array(nn.get_parameters()["conv1/conv/W"].d)

    assert np.array_equal(first_weight(1), first_weight(1))
    assert not np.array_equal(first_weight(1), first_weight(2))
