"""Decisions, against numpy, for any logits and any number of precisions."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnmpq.dynamic.decide import Decision, greedy, sampled, straight_through, take

# Each example builds a graph.
few = settings(max_examples=25)
PRECISIONS = st.integers(2, 4)
# Eighths are exact in single precision, so that ties are ties.
EIGHTHS = st.integers(-40, 40).map(lambda n: n / 8)


@st.composite
def logits(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(1, 6)), draw(PRECISIONS))
    return draw(hnp.arrays(np.float32, shape, elements=EIGHTHS))


def leaf(values: np.ndarray, need_grad: bool = False) -> nn.Variable:
    variable = nn.Variable(np.shape(values), need_grad=need_grad)
    variable.d = values
    return variable


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def run(decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    F.sink(decision.chosen, decision.probabilities).forward()
    return np.array(decision.chosen.d), np.array(decision.probabilities.d)


@few
@given(logits(), EIGHTHS)
def test_greedy_takes_the_largest_after_the_price_and_of_equal_ones_the_narrowest(x: np.ndarray, price: float) -> None:
    costs = np.arange(x.shape[1], dtype=np.float32)
    chosen, p = run(greedy(leaf(x), costs, leaf(np.full((1, 1), price))))
    expected = np.argmax(x - np.float32(price) * costs, axis=1)
    np.testing.assert_array_equal(chosen, np.eye(x.shape[1])[expected])
    np.testing.assert_allclose(p, softmax(x), atol=1e-6)


@few
@given(logits())
def test_a_dearer_wide_path_is_never_taken_more_often(x: np.ndarray) -> None:
    costs = np.linspace(0, 1, x.shape[1], dtype=np.float32)
    price = leaf(np.zeros((1, 1)))
    decision = greedy(leaf(x), costs, price)
    spent = []
    for value in (-20.0, -1.0, 0.0, 0.5, 3.0, 20.0):
        price.d = value
        spent.append(run(decision)[0] @ costs)
    assert (np.diff(spent, axis=0) <= 1e-6).all()


@few
@given(logits(), st.floats(0, 0.2), st.data())
def test_draws_land_where_the_cumulated_probabilities_say(x: np.ndarray, floor: float, data: st.DataObject) -> None:
    u = data.draw(hnp.arrays(np.float32, (len(x), 1), elements=st.floats(0, 0.9990234375, width=32)))
    chosen, p = run(sampled(leaf(x), leaf(u), floor, leaf(np.zeros((1, 1)))))
    count = x.shape[1]
    expected = floor + (1 - count * floor) * softmax(x)
    np.testing.assert_allclose(p, expected, atol=1e-6)
    np.testing.assert_array_equal(chosen.sum(axis=1), np.ones(len(x)))
    edges = np.cumsum(expected, axis=1)
    clear = np.abs(edges[:, :-1] - u).min(axis=1) > 1e-5
    landed = (u >= edges[:, :-1]).sum(axis=1)
    np.testing.assert_array_equal(chosen[clear].argmax(axis=1), landed[clear])


@few
@given(logits(), st.floats(0, 0.2))
def test_no_precision_is_less_likely_than_the_floor(x: np.ndarray, floor: float) -> None:
    _, p = run(sampled(leaf(40 * x), leaf(np.zeros((len(x), 1))), floor, leaf(np.zeros((1, 1)))))
    assert p.min() >= floor - 1e-6
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["sampled", "straight_through"])
@pytest.mark.parametrize("count", [2, 3])
def test_by_lot_every_precision_has_the_same_share_whatever_the_gate_says(kind: str, count: int) -> None:
    rows = 600
    x, one = leaf(np.tile(np.arange(count) * 30.0, (rows, 1))), leaf(np.ones((1, 1)))
    u = leaf((np.arange(rows)[:, None] + 0.5) / rows)
    if kind == "sampled":
        decision = sampled(x, u, 0.02, one)
    else:
        decision = straight_through(x, np.zeros(count), leaf(np.zeros((1, 1))), u, one)
    np.testing.assert_allclose(run(decision)[0].mean(axis=0), 1 / count, atol=2 / rows)


@few
@given(logits())
def test_straight_through_weights_are_the_choices_to_the_bit(x: np.ndarray) -> None:
    zero = leaf(np.zeros((1, 1)))
    decision = straight_through(leaf(x), np.zeros(x.shape[1]), zero, leaf(np.zeros((len(x), 1))), zero)
    assert decision.weights is not None
    F.sink(decision.weights, decision.chosen).forward()
    np.testing.assert_array_equal(decision.weights.d, decision.chosen.d)


def test_while_paths_are_drawn_by_lot_the_gate_learns_nothing() -> None:
    x = leaf(np.array([[0.3, -0.2], [1.0, 2.0]]), need_grad=True)
    for share, moved in ((1.0, False), (0.0, True)):
        numbers, random_share = leaf(np.array([[0.1], [0.9]])), leaf(np.full((1, 1), share))
        decision = straight_through(x, np.zeros(2), leaf(np.zeros((1, 1))), numbers, random_share)
        assert decision.weights is not None
        loss = F.sum(F.mul2(decision.weights, leaf(np.array([[1.0, -1.0]] * 2))))
        loss.forward()
        x.g = 0
        loss.backward()
        assert bool(np.abs(x.g).sum() > 0) is moved


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_each_sample_gets_the_path_that_it_chose(count: int, mixed: bool) -> None:
    rng = np.random.RandomState(count)
    outputs = [rng.randn(6, 3, 2, 2).astype(np.float32) for _ in range(count)]
    which = rng.randint(0, count, 6)
    chosen = leaf(np.eye(count)[which])
    y = take([leaf(output) for output in outputs], Decision(chosen, chosen, chosen if mixed else None))
    y.forward()
    np.testing.assert_array_equal(y.d, np.stack([outputs[k][row] for row, k in enumerate(which)]))


@pytest.mark.parametrize("mixed", [False, True])
def test_the_gradient_goes_to_the_chosen_path_alone(mixed: bool) -> None:
    outputs = [leaf(np.zeros((2, 3)), need_grad=True) for _ in range(2)]
    chosen = leaf(np.array([[1.0, 0.0], [0.0, 1.0]]))
    y = take(outputs, Decision(chosen, chosen, chosen if mixed else None))
    loss = F.sum(y)
    loss.forward()
    for output in outputs:
        output.g = 0
    loss.backward()
    np.testing.assert_array_equal(outputs[0].g, [[1] * 3, [0] * 3])
    np.testing.assert_array_equal(outputs[1].g, [[0] * 3, [1] * 3])


def test_nothing_flows_back_from_a_greedy_choice() -> None:
    x = leaf(np.array([[0.3, -0.2]]), need_grad=True)
    decision = greedy(x, np.array([0.0, 1.0]), leaf(np.zeros((1, 1))))
    assert not decision.chosen.need_grad
    loss = F.sum(F.add2(decision.chosen, F.mul_scalar(decision.probabilities, 0.0)))
    loss.forward()
    x.g = 0
    loss.backward()
    np.testing.assert_array_equal(x.g, np.zeros((1, 2)))
