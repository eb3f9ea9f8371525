"""Allocation: against every allocation there is, and against the cost itself."""

from __future__ import annotations

import math

import nnabla as nn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.trace import trace
from nnmpq.models import build
from nnmpq.search.allocate import adjust, allocate, worthwhile
from nnmpq.search.front import sweep
from nnmpq.search.program import Program
from nnmpq.search.program import build as build_program
from nnmpq.search.table import TableError
from nnmpq.training.errors import BudgetError
from tests.networks import foreign
from tests.search.small import exhaustive, network, problems


def total(losses, bits):
    return math.fsum(losses[name][bits[name]] for name in losses)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problems())
def test_no_other_allocation_is_better(problem):
    net, losses, fixed, budget = problem
    bits = allocate(losses, net, budget, fixed=fixed)
    assert bits.keys() == losses.keys() | fixed.keys()
    assert {name: bits[name] for name in fixed} == fixed
    assert budget.met_by(cost(net, bits))
    least, smallest = exhaustive(net, losses, fixed, budget)
    assert total(losses, bits) == pytest.approx(least, abs=1e-9)
    if all(loss.is_integer() for by_bits in losses.values() for loss in by_bits.values()):
        elements = {site.name: site.elements for site in net.sites()}
        assert sum(elements[name] * bits[name] for name in losses) == smallest


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(), st.randoms(use_true_random=False))
def test_adjusting_only_narrows_and_adds_the_least_loss(problem, random):
    net, losses, fixed, budget = problem
    given_bits = {**fixed, **{name: random.choice(sorted(by_bits)) for name, by_bits in losses.items()}}
    allowed = {
        name: {bits: loss for bits, loss in by_bits.items() if bits <= given_bits[name]}
        for name, by_bits in losses.items()
    }
    bits = adjust(given_bits, losses, net, budget)
    assert budget.met_by(cost(net, bits))
    assert all(bits[name] <= given_bits[name] for name in given_bits)
    if budget.met_by(cost(net, given_bits)):
        assert bits == given_bits
    else:
        assert total(losses, bits) == pytest.approx(exhaustive(net, allowed, fixed, budget)[0], abs=1e-9)


def test_equal_losses_store_the_fewest_bits():
    """Narrowing either layer loses 1 and meets the limit; the larger one saves more."""
    net = network([10, 30], [4], [(0,), (0,)])
    losses = {"l0/W": {2: 1.0, 4: 0.0}, "l1/W": {2: 1.0, 4: 0.0}}
    assert allocate(losses, net, Budget(weights_kib=140 / 8192)) == {"l0/W": 4, "l1/W": 2}
    assert allocate({"l1/W": {2: 1.0, 4: 1.0, 8: 1.0}}, net, Budget()) == {"l1/W": 2}


def test_a_limit_that_is_met_to_the_last_bit_is_met():
    net = network([10, 30], [4], [(0,), (0,)])
    losses = {"l0/W": {2: 1.0, 5: 0.0}, "l1/W": {2: 1.0, 7: 0.0}}
    exact = cost(net, {"l0/W": 5, "l1/W": 7}).weights_kib
    assert allocate(losses, net, Budget(weights_kib=exact)) == {"l0/W": 5, "l1/W": 7}
    losses["l0/W"][2] = 0.9
    assert allocate(losses, net, Budget(weights_kib=exact * (1 - 1e-12))) == {"l0/W": 2, "l1/W": 7}


def test_what_the_solver_takes_for_met_but_is_over_by_a_bit_is_not_handed_back(monkeypatch):
    """Four bits more than the limit of 3 * 10^9: far inside the solver's tolerance."""
    refused = []
    forbid = Program.forbid
    monkeypatch.setattr(Program, "forbid", lambda self, bits: (refused.append(bits), forbid(self, bits)))
    net = network([500_000_001, 499_999_999], [4], [(0,), (0,)])
    losses = {"l0/W": {2: 1.0, 4: 0.0}, "l1/W": {2: 1.1, 4: 0.0}}
    room = 500_000_001 * 2 + 499_999_999 * 4
    bits = allocate(losses, net, Budget(weights_kib=room / 8192))
    assert bits == {"l0/W": 2, "l1/W": 4} and not refused
    swapped = {"l0/W": {2: 1.1, 4: 0.0}, "l1/W": {2: 1.0, 4: 0.0}}
    over = 500_000_001 * 4 + 499_999_999 * 2
    assert over - room == 4
    assert allocate(swapped, net, Budget(weights_kib=room / 8192)) == {"l0/W": 2, "l1/W": 4}
    assert {"l0/W": 4, "l1/W": 2} in refused


def test_a_concatenation_is_read_at_its_widest_part():
    """Narrowing one part alone saves nothing: it keeps its bits."""
    net = network([10], [4, 4], [(0, 1)])
    losses = {"a0/relu": {2: 0.1, 8: 0.0}, "a1/relu": {2: 5.0, 8: 0.0}, "l0/W": {2: 1.0, 4: 0.0}}
    limit = cost(net, {"l0/W": 2, "a0/relu": 8, "a1/relu": 8}).bitops
    assert allocate(losses, net, Budget(bitops=limit)) == {"l0/W": 2, "a0/relu": 8, "a1/relu": 8}


def test_what_is_out_of_reach_is_named_with_the_least_of_each_limit():
    net = network([4096], [8192], [(0,)])
    losses = {"l0/W": {2: 1.0, 8: 0.0}, "a0/relu": {3: 1.0, 8: 0.0}}
    with pytest.raises(BudgetError, match=r"weights_kib 0\.5 is wanted, 1 is the least; activations_max_kib 4 .* 3 is"):
        allocate(losses, net, Budget(weights_kib=0.5, activations_max_kib=4.0))
    with pytest.raises(BudgetError, match=r"weights_kib 0\.5 is wanted, 1 is the least"):
        adjust({"l0/W": 8, "a0/relu": 8}, losses, net, Budget(weights_kib=0.5))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
def test_a_loss_that_is_no_number_names_its_site(value):
    net = network([10, 30], [4], [(0,), (0,)])
    with pytest.raises(TableError, match=r"l1/W at 4 bits: the loss is (nan|inf|-0\.5)"):
        allocate({"l0/W": {4: 0.0}, "l1/W": {2: 0.0, 4: value}}, net, Budget())


def test_a_site_is_free_or_fixed():
    net = network([10], [4], [(0,)])
    with pytest.raises(TableError, match="l0/W: it is fixed at 3 bits"):
        allocate({"l0/W": {4: 0.0}}, net, Budget(), fixed={"l0/W": 3})
    with pytest.raises(TableError, match="l0/W: it is fixed at 3 bits"):
        sweep({"l0/W": {4: 0.0}}, net, "weights_kib", [1.0], fixed={"l0/W": 3})


def test_widths_that_no_optimum_has_are_left_out():
    net = network([10], [8192], [(0,)])
    losses = {"l0/W": {2: 1.0, 3: 1.0, 4: 2.0, 5: 0.5}, "a0/relu": {2: 3.0, 4: 2.0, 8: 1.0}}
    assert worthwhile(losses, net, Budget(activations_max_kib=7.9)) == {"l0/W": (2, 5), "a0/relu": (2, 4)}


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_add_up_to_the_cost_of_real_networks(seed):
    """Every limit's row, at random widths of a network with branches and a concatenation, is the cost it limits."""
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    net = trace(foreign(nn.Variable((1, 3, 8, 8)), test=True))
    rng = np.random.default_rng(seed)
    fixed = {site.name: int(rng.integers(2, 9)) for site in net.sites() if rng.random() < 0.2}
    widths = {site.name: (2, 3, 5, 8) for site in net.sites() if site.name not in fixed}
    bits = {name: int(rng.choice(own)) for name, own in widths.items()}
    used = cost(net, {**fixed, **bits})
    for name in ("weights_kib", "activations_sum_kib", "bitops", "mean_bits"):
        for share, met in ((1 + 1e-7, True), (1 - 1e-7, False)):
            budget = Budget(**{name: getattr(used, name) * share})
            program = build_program(net, budget, widths, fixed)
            for site, places in program.columns.items():
                program.rows.add([places[widths[site].index(bits[site])]], [1.0], 1.0, 1.0)
            rows = program.rows.constraint()
            count = program.rows.columns
            options = {"presolve": False}
            # A wider tolerance than the hair between the two limits would not tell them apart.
            found = milp(
                np.zeros(count),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(rows.A * 100, rows.lb * 100, rows.ub * 100),
                options=options,
            )
            assert found.success == met, (name, share)


def test_resnet20_under_four_limits_at_once():
    net = trace(build("resnet", nn.Variable((1, 3, 32, 32)), 10, test=True))
    losses = {
        site.name: {bits: site.elements**0.5 * 4.0**-bits for bits in range(2, 9)}
        for site in net.sites()
        if site.kind != "input" and site.kind != "pool"
    }
    budget = Budget(weights_kib=100.0, activations_sum_kib=120.0, activations_max_kib=9.0, mean_bits=3.6)
    bits = allocate(losses, net, budget)
    used = cost(net, bits)
    assert budget.met_by(used)
    # What is left over of the tightest limits is less than one site's bit.
    assert used.weights_kib > 95 or used.mean_bits > 3.55
    widest_map = 16 * 32 * 32
    assert all(bits[site.name] <= 4 for site in net.activations if site.elements == widest_map and site.name in bits)
