"""Limits as terms of a loss: their gradient, their multipliers, and where shares under them come to rest."""

from __future__ import annotations

import math

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.budget import Budget
from nnmpq.search.multipliers import LARGEST_EXCESS, LEAST, STIFFNESS, Multipliers, multipliers
from tests.search.small import network

ONE = network([8192], [1], [()])
WIDTHS = np.array([2.0, 3.0, 4.0, 6.0, 8.0])


def weight_limit(bits, limit=4.0, start=0.3) -> Multipliers:
    nn.clear_parameters()
    return multipliers(ONE, {"l0/W": bits}, Budget(weights_kib=limit), start)


@pytest.mark.parametrize(("mu", "kib"), [(0.3, 6.0), (0.3, 4.0), (0.3, 3.9), (0.3, 3.5), (7.0, 3.0), (7.0, 3.65)])
def test_a_limits_pressure(mu, kib):
    bits = nn.Variable.from_numpy_array(np.float32(kib)).apply(need_grad=True)
    made = weight_limit(bits)
    made.values["weights_kib"].d, bits.g = mu, 0
    made.terms["weights_kib"].forward()
    made.terms["weights_kib"].backward()
    # The KiB of 8192 weights are their bits; d term / d bits = mu (1 + k g) / limit, none at 1/k below it.
    pressure = max(1 + STIFFNESS * (kib / 4 - 1), 0)
    assert float(made.terms["weights_kib"].d) == pytest.approx(mu * pressure**2 / (2 * STIFFNESS), abs=1e-5)
    assert float(bits.g) == pytest.approx(mu * pressure / 4, abs=1e-5)
    assert (float(bits.g) == 0) == (kib < 4 * (1 - 1 / STIFFNESS))


@given(st.floats(1.0, 20.0), st.floats(0.0, 2.0), st.floats(1e-3, 50.0))
def test_a_multiplier_moves_by_the_logarithm(kib, rate, mu):
    made = weight_limit(nn.Variable(()))
    value = made.values["weights_kib"]
    value.d = mu
    made.ascend(rate, {"l0/W": kib})
    bounded = max(-LARGEST_EXCESS, min(kib / 4 - 1, LARGEST_EXCESS))
    assert float(value.d) == pytest.approx(max(mu * math.exp(rate * bounded), LEAST), rel=1e-5)
    # Twice the way there and back: nothing is left of it.
    made.ascend(rate, {"l0/W": 4.0 * (1 - bounded)})
    assert float(value.d) == pytest.approx(mu, rel=1e-4) or float(value.d) == pytest.approx(LEAST)


def test_a_multiplier_never_gets_stuck_at_nothing():
    made = weight_limit(nn.Variable(()), start=0.0)
    assert float(made.values["weights_kib"].d) == pytest.approx(LEAST)
    for _ in range(5):
        made.ascend(1.0, {"l0/W": 1.0})
    assert float(made.values["weights_kib"].d) == pytest.approx(LEAST)
    made.ascend(1.0, {"l0/W": 8.0})
    assert float(made.values["weights_kib"].d) > LEAST


def test_limits_that_no_variable_decides_have_no_term():
    nn.clear_parameters()
    made = multipliers(ONE, {"l0/W": nn.Variable(())}, Budget(weights_kib=4.0, activations_sum_kib=1.0))
    assert list(made.terms) == list(made.values) == list(made.limits) == ["weights_kib"]
    assert made.excess({"l0/W": 5.0}) == {"weights_kib": pytest.approx(0.25)}
    assert list(nn.get_parameters(grad_only=False)) == ["search/multiplier/weights_kib"]
    assert not nn.get_parameters()


@pytest.mark.parametrize("scale", [5.0, 0.5, 0.05])
def test_shares_come_to_rest_at_the_limit_whatever_a_bit_is_worth(scale):
    """Losses s_i 4^-b_i, weights of equal size under a limit on their sum.

    The relaxed optimum has no closed form in shares; but the price of a bit, -dL/db_i, is the same for all tensors that
    are inside their widths there, and the limit is used up: neither 2 bits everywhere nor more than the limit.
    """
    nn.clear_parameters()
    net = network([8192] * 4, [1], [()] * 4)
    names = [layer.weight.name for layer in net.layers]
    made = multipliers(net, {name: nn.Variable(()) for name in names}, Budget(weights_kib=12.0), 0.2)
    value = made.values["weights_kib"]
    harms = scale * 4.0 ** np.arange(4)[:, None] * 4.0**-WIDTHS
    alphas, mean, square = np.zeros((3, 4, 5))
    seen = []
    for update in range(1, 801):
        shares = np.exp(alphas) / np.exp(alphas).sum(axis=1, keepdims=True)
        bits = shares @ WIDTHS
        # By each bit: mu (1 + k g) / limit, as the test above has it of the graph.
        pressure = float(value.d) * max(1 + STIFFNESS * (bits.sum() / 12 - 1), 0) / 12
        slope = harms + pressure * WIDTHS
        slope = shares * (slope - np.sum(shares * slope, axis=1, keepdims=True))
        # Adam, as the shares have it.
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        alphas = alphas - 0.03 * (mean / (1 - 0.9**update)) / (np.sqrt(square / (1 - 0.999**update)) + 1e-8)
        made.ascend(0.2, dict(zip(names, bits)))
        seen.append(bits.sum() / 12 - 1)
    # Nothing of the way down is left over: it ends at the limit, and never falls far below where it presses no more.
    assert abs(seen[-1]) < 0.06 and np.mean(np.abs(seen[-100:])) < 0.08, seen[::50]
    assert min(seen) > -1 / STIFFNESS - 0.05
    # What four times as much depends on gets more.
    assert bits.tolist() == sorted(bits) and bits[-1] - bits[0] > 1
