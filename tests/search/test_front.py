"""Knapsack and fronts: against every solution there is, against `allocate`, and against the clock."""

from __future__ import annotations

import itertools
import math
import time

import nnabla as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.search import front as module
from nnmpq.search.allocate import allocate
from nnmpq.search.front import sweep
from nnmpq.search.knapsack import Units, lower_hull, solve, undominated
from nnmpq.search.task import network_of
from nnmpq.training.errors import BudgetError
from tests.search.small import exhaustive, network, problems

options = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=5)


def made(unit):
    cost_, loss = (np.array(v, np.float64) for v in zip(*unit))
    kept = undominated(cost_, loss)
    return cost_[kept], loss[kept]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(options, min_size=1, max_size=5), st.floats(0, 1))
def test_no_other_choice_of_options_is_better(lists, share):
    units = Units(*zip(*(made(unit) for unit in lists)))
    capacity = math.floor(units.least + share * (units.most - units.least))
    chosen = solve(units, capacity)
    every = [
        (sum(loss[i] for loss, i in zip(units.losses, picked)), sum(c[i] for c, i in zip(units.costs, picked)))
        for picked in itertools.product(*(range(len(c)) for c in units.costs))
    ]
    found = (
        sum(loss[i] for loss, i in zip(units.losses, chosen)),
        sum(c[i] for c, i in zip(units.costs, chosen)),
    )
    # Of equal losses the cheapest.
    assert found == min(pair for pair in every if pair[1] <= capacity)


def test_a_capacity_below_the_cheapest_options_is_refused():
    with pytest.raises(ValueError, match="capacity 3: the cheapest options cost 4"):
        solve(Units([np.array([4.0, 5.0])], [np.array([1.0, 0.0])]), 3.0)


@given(options)
def test_the_hull_is_below_every_option(unit):
    costs, losses = made(unit)
    hull = lower_hull(costs, losses)
    assert np.all(np.interp(costs, costs[hull], losses[hull]) <= losses + 1e-9)
    slopes = np.diff(losses[hull]) / np.diff(costs[hull])
    assert hull[0] == 0 and hull[-1] == len(costs) - 1 and np.all(np.diff(slopes) > -1e-12)


@given(options)
def test_what_is_left_of_options_is_what_none_beats(unit):
    pairs = {(c, loss) for c, loss in unit}
    kept = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    costs, losses = made(unit)
    assert list(zip(costs, losses)) == sorted(kept)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems())
def test_every_point_is_an_optimum(problem):
    net, losses, fixed, budget = problem
    limits = budget.limits()
    largest = limits.pop("activations_max_kib", None)
    for target, limit in limits.items():
        wanted = Budget(**{target: limit, "activations_max_kib": largest})
        (bits,) = sweep(losses, net, target, [limit], budget=Budget(activations_max_kib=largest), fixed=fixed)
        assert wanted.met_by(cost(net, {**fixed, **bits}))
        total = math.fsum(losses[name][bits[name]] for name in losses)
        assert total == pytest.approx(exhaustive(net, losses, fixed, wanted)[0], abs=1e-9)


def test_further_limits_go_through_the_integer_program(monkeypatch):
    net = network([10, 30], [40, 8], [(0,), (1,)])
    losses = {name: {2: 1.0, 4: 0.3, 8: 0.0} for name in ("l0/W", "l1/W", "a0/relu", "a1/relu")}
    others = Budget(activations_sum_kib=150 / 8192)
    found = sweep(losses, net, "weights_kib", [100 / 8192, 200 / 8192], budget=others)
    for limit, bits in zip((100 / 8192, 200 / 8192), found):
        wanted = Budget(weights_kib=limit, activations_sum_kib=150 / 8192)
        assert bits == allocate(losses, net, wanted) and wanted.met_by(cost(net, bits))


def test_an_activation_that_two_concatenations_hold_is_still_an_optimum():
    net = network([10, 20, 15], [4, 6], [(0, 1), (0,), (1,)])
    losses = {f"l{i}/W": {2: 1.0 + i, 4: 0.1, 8: 0.0} for i in range(3)}
    losses |= {"a0/relu": {2: 0.9, 5: 0.0}, "a1/relu": {2: 0.5, 3: 0.2, 8: 0.0}}
    choices = {name: tuple(own) for name, own in losses.items()}
    assert module._by_reading(losses, net, choices, {}) is None
    for limit in (2000.0, 4000.0, 9000.0):
        (bits,) = sweep(losses, net, "bitops", [limit])
        total = math.fsum(losses[name][bits[name]] for name in losses)
        assert total == pytest.approx(exhaustive(net, losses, {}, Budget(bitops=limit))[0])


def test_a_limit_out_of_reach_is_named():
    net = network([4096], [8], [(0,)])
    with pytest.raises(BudgetError, match=r"weights_kib 0\.5 is wanted, 1 is the least"):
        sweep({"l0/W": {2: 1.0, 4: 0.0}}, net, "weights_kib", [2.0, 0.5])


@pytest.fixture(scope="module")
def resnet50():
    """Its 54 layers, and losses of all weights and ReLUs at 7 widths, as a score would give them."""
    with nn.auto_forward(False):
        net = network_of(Experiment("X", arch="resnet50"), (3, 224, 224), 1000)
    rng = np.random.default_rng(7)
    losses = {}
    for site in net.sites():
        if site.role != "activation" or site.kind == "relu":
            scale = np.exp(1.5 * rng.normal())
            losses[site.name] = {bits: float(scale * 4.0**-bits * np.exp(0.1 * rng.normal())) for bits in range(2, 9)}
    return net, losses


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [("mean_bits", 2.7, 8.5), ("weights_kib", 6300, 24900), ("activations_sum_kib", 2500, 9500)],
)
def test_32_budgets_of_resnet50_take_less_than_a_second(resnet50, target, low, high):
    net, losses = resnet50
    assert len(net.layers) == 54
    limits = np.geomspace(low, high, 32)
    started = time.process_time()
    found = sweep(losses, net, target, limits)
    assert time.process_time() - started < 1.0
    totals = [math.fsum(losses[name][bits[name]] for name in losses) for bits in found]
    assert totals == sorted(totals, reverse=True)
    for limit, bits in zip(limits, found):
        assert Budget(**{target: limit}).met_by(cost(net, bits))


def test_a_point_of_resnet50_is_what_the_integer_program_finds(resnet50):
    net, losses = resnet50
    (bits,) = sweep(losses, net, "mean_bits", [5.0])
    other = allocate(losses, net, Budget(mean_bits=5.0))
    totals = [math.fsum(losses[name][own[name]] for name in losses) for own in (bits, other)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-9)
