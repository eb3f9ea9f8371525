"""Rewards and their gradients, against the formulas in numpy."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from nnmpq.dynamic.decide import sampled
from nnmpq.dynamic.reward import Action, batch_means, entropy, policy_loss, returns

BATCH, GATES = 5, 3
SAVINGS = np.array([[0.2, 0.0], [0.3, 0.0], [0.5, 0.0]])


def _fixed(values: np.ndarray) -> nn.Variable:
    return nn.Variable.from_numpy_array(np.asarray(values, np.float32))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Choices, 1 for wide, and cross entropies."""
    rng = np.random.RandomState(0)
    return rng.randint(0, 2, (BATCH, GATES)), rng.rand(BATCH)


def _actions(chosen: np.ndarray) -> list[Action]:
    half = _fixed(np.full((BATCH, 2), 0.5))
    return [Action(_fixed(np.eye(2)[chosen[:, gate]]), half) for gate in range(GATES)]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_returns_are_each_samples_own(drawn: tuple[np.ndarray, np.ndarray], gamma: float) -> None:
    chosen, entropies = drawn
    found = returns(_fixed(entropies[:, None]), _actions(chosen), SAVINGS, F.constant(0.4, ()), gamma)
    for gate in range(GATES):
        expected = -(gamma ** (GATES - gate)) * entropies
        for later in range(gate, GATES):
            expected = expected + gamma ** (later - gate) * 0.4 * SAVINGS[later, 0] * (1 - chosen[:, later])
        found[gate].forward()
        np.testing.assert_allclose(found[gate].d[:, 0], expected, rtol=1e-5)


def test_the_published_slip_gives_every_sample_the_mean_cross_entropy(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    chosen, entropies = drawn
    found = returns(_fixed(entropies[:, None]), _actions(chosen), SAVINGS, F.constant(0.0, ()), over_batch=True)
    found[0].forward()
    np.testing.assert_allclose(found[0].d[:, 0], np.full(BATCH, -entropies.mean()), rtol=1e-5)


@pytest.mark.parametrize("over_batch", [False, True])
def test_the_slip_is_what_broadcasting_the_published_shapes_gives(
    drawn: tuple[np.ndarray, np.ndarray], over_batch: bool
) -> None:
    chosen, entropies = drawn
    probabilities = np.random.RandomState(1).rand(BATCH)
    p = np.stack([1 - probabilities, probabilities], axis=1)
    action = Action(_fixed(np.eye(2)[chosen[:, 0]]), _fixed(p))
    gains = returns(_fixed(entropies[:, None]), [action], SAVINGS[:1], F.constant(0.1, ()), over_batch=over_batch)
    loss = policy_loss([action], gains, None)
    loss.forward()
    likelihood = np.log(p[np.arange(BATCH), chosen[:, 0]])
    reward = 0.1 * SAVINGS[0, 0] * (1 - chosen[:, 0])
    if over_batch:
        # (B,) + (B, 1) is (B, B), as in the published code.
        expected = np.mean(-likelihood * (reward + -entropies[:, None]))
    else:
        expected = np.mean(-likelihood * (reward - entropies))
    assert float(loss.d) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_at_the_logits_is_the_policy_gradient(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    _, entropies = drawn
    rng = np.random.RandomState(2)
    logits = nn.Variable((BATCH, 2), need_grad=True)
    logits.d = rng.randn(BATCH, 2)
    numbers = rng.rand(BATCH)
    decision = sampled(logits, _fixed(numbers[:, None]), 0.0, F.constant(0, (1, 1)))
    action = Action(decision.chosen, decision.probabilities)
    gains = returns(_fixed(entropies[:, None]), [action], SAVINGS[:1], F.constant(0.3, ()))
    loss = policy_loss([action], gains, batch_means(gains))
    loss.forward()
    logits.g = 0
    loss.backward()
    z = np.exp(logits.d - logits.d.max(axis=1, keepdims=True))
    p = z / z.sum(axis=1, keepdims=True)
    wide = (numbers >= p[:, 0]).astype(int)
    gain = 0.3 * SAVINGS[0, 0] * (1 - wide) - entropies
    expected = -(gain - gain.mean())[:, None] * (np.eye(2)[wide] - p) / BATCH
    np.testing.assert_allclose(logits.g, expected, atol=1e-6)


def test_nothing_flows_into_the_cross_entropies(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    chosen, entropies = drawn
    leaf = nn.Variable((BATCH, 1), need_grad=True)
    leaf.d = entropies[:, None]
    logits = nn.Variable((BATCH, 2), need_grad=True)
    logits.d = 0
    action = Action(_fixed(np.eye(2)[chosen[:, 0]]), F.softmax(logits))
    loss = policy_loss([action], returns(F.mul_scalar(leaf, 1.0), [action], SAVINGS[:1], F.constant(1.0, ())), None)
    loss.forward()
    leaf.g = 7
    loss.backward()
    np.testing.assert_array_equal(leaf.g, np.full((BATCH, 1), 7, np.float32))
    assert np.abs(logits.g).sum() > 0


def test_entropy_is_largest_for_undecided_gates() -> None:
    values = []
    for p in ([0.5, 0.5], [0.9, 0.1], [1.0, 0.0]):
        h = entropy([Action(_fixed([p]), _fixed([p]))])
        h.forward()
        values.append(float(h.d))
    assert values[0] == pytest.approx(np.log(2))
    assert values[1] == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), rel=1e-5)
    assert values[2] == pytest.approx(0, abs=1e-6)
