"""Budgets and what can be reached."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import pytest

from nnmpq.budget import Budget, least_reachable
from nnmpq.cost import TARGETS, Cost
from nnmpq.graph.trace import trace

USED = Cost(70.0, 92.0, 8.0, 1000.0, 900.0, 3.0)


def test_a_limit_is_met_up_to_and_with_itself():
    assert Budget(weights_kib=70.0).met_by(USED)
    assert not Budget(weights_kib=69.999).met_by(USED)
    assert Budget().met_by(USED)


def test_excess_names_only_what_is_over():
    budget = Budget(weights_kib=65.5, activations_sum_kib=92.1, activations_max_kib=7.0, bitops=1e9, mean_bits=2.5)
    assert budget.excess(USED) == {"weights_kib": 4.5, "activations_max_kib": 1.0, "mean_bits": 0.5}
    assert not budget.met_by(USED)


def test_a_cost_that_is_no_number_meets_nothing():
    assert not Budget(bitops=10.0).met_by(attrs.evolve(USED, bitops=float("nan")))
    assert Budget(weights_kib=70.0).met_by(attrs.evolve(USED, bitops=float("nan")))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "70"])
@pytest.mark.parametrize("name", ["weights_kib", "activations_sum_kib", "activations_max_kib", "bitops", "mean_bits"])
def test_limits_are_positive_numbers(name, value):
    with pytest.raises(ValueError, match=name):
        Budget(**{name: value})


def test_every_limit_is_a_cost():
    assert {field.name for field in attrs.fields(Budget)} <= set(TARGETS)


def test_least_reachable():
    """4096 weights and 64 activations: 1 KiB and 1/64 KiB at 2 bits."""
    h = F.relu(PF.affine(nn.Variable((1, 32)), 64, with_bias=False, name="a"))
    network = trace(PF.affine(h, 32, with_bias=False, name="b"))
    narrowest = {"a/affine/W": 2, "b/affine/W": 2, "a/affine/relu": 2}
    assert least_reachable(network, Budget(weights_kib=1.0, activations_sum_kib=1 / 64), narrowest) == {}
    budget = Budget(weights_kib=0.5, activations_max_kib=0.5)
    assert least_reachable(network, budget, narrowest) == {"weights_kib": 1.0}
