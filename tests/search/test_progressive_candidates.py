"""Candidates of the progressive search: how subsets are drawn, what is saved, and the step onto the budget."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.search.progressive_candidates import Space, jump, last_steps, random_subsets, sampled_subsets
from tests.search.small import network, problems

# Two weights of 800 and 1600 numbers; activations of 100 and 300 numbers, which they read.
NET = network([800, 1600], [100, 300], [(0,), (1,)])
ALL = tuple(range(2, 9))
WIDTHS = {"l0/W": ALL, "l1/W": ALL, "a0/relu": ALL, "a1/relu": ALL}
EIGHT = dict.fromkeys(WIDTHS, 8)
KIB = 8192


def space(interval=1, widths=WIDTHS, **limits):
    return Space(NET, widths, {}, Budget(**limits), interval)


def test_the_next_width_is_the_widest_that_is_an_interval_narrower():
    own = space(2, {"l0/W": (2, 3, 5, 8)})
    assert [own.lower("l0/W", bits) for bits in (8, 5, 3, 2)] == [5, 3, 2, 2]


def test_the_excess_is_the_sum_of_shares_beyond_the_limits():
    own = space(weights_kib=8 * 2400 / KIB / 2, activations_max_kib=200 * 8 / KIB, bitops=1e12)
    # Weights use twice their limit; of the activations one is half as large again as allowed.
    assert own.excess(EIGHT) == pytest.approx(1.0 + 0.5)
    assert own.excess({**EIGHT, "l0/W": 4, "l1/W": 4, "a1/relu": 5}) == 0.0


def test_a_site_is_worth_what_it_takes_off_the_excess():
    own = space(weights_kib=2400 / KIB, activations_sum_kib=400 / KIB)
    # One bit of each site, as a share of its limit.
    expected = {"l0/W": 800 / 2400, "l1/W": 1600 / 2400, "a0/relu": 100 / 400, "a1/relu": 300 / 400}
    assert own.savings(EIGHT) == pytest.approx(expected)
    # What nobody limits is left alone, and a site at its fewest bits has none to give.
    assert own.savings({**EIGHT, "l0/W": 2}).keys() == {"l1/W", "a0/relu", "a1/relu"}
    assert space(weights_kib=1.0).savings(EIGHT).keys() == {"l0/W", "l1/W"}


def test_where_no_site_alone_helps_all_may_be_lowered():
    # The layer works at the width of the wider of the two that it reads: one alone saves nothing.
    both = network([100], [10, 10], [(0, 1)])
    widths = {"a0/relu": ALL, "a1/relu": ALL}
    own = Space(both, widths, {"l0/W": 8}, Budget(bitops=1.0))
    assert own.savings(dict.fromkeys(widths, 8)) == {"a0/relu": 1.0, "a1/relu": 1.0}


def test_published_subsets_are_half_of_all_and_all_sites_alike():
    names = [f"s{i}" for i in range(7)]
    subsets = random_subsets(names, 0.5, 4000, np.random.default_rng(0))
    assert {len(set(subset)) for subset in subsets} == {3}
    share = np.mean([[name in subset for name in names] for subset in subsets], axis=0)
    # Each of 7 in 3 of 7 subsets: five standard deviations of a mean of 4000.
    np.testing.assert_allclose(share, 3 / 7, atol=5 * math.sqrt(3 / 7 * 4 / 7 / 4000))


def test_sites_are_drawn_by_exp_of_minus_their_price():
    prices = {"a": 0.0, "b": 1.0, "c": 2.0}
    first, rounds = dict.fromkeys(prices, 0), 3000
    for seed in range(rounds):
        # The second subset is the first that is drawn and is not the cheapest, {a}.
        drawn = sampled_subsets(prices, 0.34, 2, np.random.default_rng(seed))
        assert drawn[0] == ["a"]
        if len(drawn) > 1:
            first[drawn[1][0]] += 1
    # The median of the prices above zero is 1.5; given that it is not a, b comes before c with this chance.
    b, c = math.exp(-1 / 1.5), math.exp(-2 / 1.5)
    share, total = b / (b + c), first["b"] + first["c"]
    assert total > 0.9 * rounds and first["a"] == 0
    assert first["b"] / total == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / total))


@pytest.mark.parametrize("count", [1, 5, 40])
def test_drawn_subsets_differ_and_are_of_one_size(count):
    prices = {f"s{i}": float(i % 4) for i in range(6)}
    subsets = sampled_subsets(prices, 0.5, count, np.random.default_rng(1))
    assert len({tuple(subset) for subset in subsets}) == len(subsets) <= min(count, math.comb(6, 3))
    assert {len(set(subset)) for subset in subsets} == {3}
    assert len(subsets) == count or count == 40


def test_even_free_sites_can_be_drawn():
    assert sampled_subsets({"a": 0.0, "b": 0.0}, 0.1, 5, np.random.default_rng(0)) in ([["a"], ["b"]], [["a"]])


def is_full(own, bits):
    """No site can be wider."""
    for name, widths in own.widths.items():
        wider = [w for w in widths if w > bits[name]]
        if wider and own.met({**bits, name: wider[0]}):
            return False
    return True


def test_what_was_lowered_in_vain_is_given_back_to_the_most_harmed_first():
    own = space(weights_kib=(2400 * 4 + 1600) / KIB)
    # In two rounds both get to 4 bits, which leaves 1600: two bits of l0, or one of l1.
    filled = own.filled({**EIGHT, "l0/W": 2, "l1/W": 2}, {"l0/W": 9.0, "l1/W": 1.0})
    assert filled == {**EIGHT, "l0/W": 6, "l1/W": 4}
    filled = own.filled({**EIGHT, "l0/W": 2, "l1/W": 2}, {"l0/W": 1.0, "l1/W": 9.0})
    assert filled == {**EIGHT, "l0/W": 4, "l1/W": 5}


def test_there_is_no_last_step_while_no_candidate_meets_the_budget():
    own = space(weights_kib=2400 * 5 / KIB)
    harm = {"l0/W": 1.0, "l1/W": 1.0}
    assert last_steps(own, EIGHT, [{**EIGHT, "l0/W": 7}, {**EIGHT, "l1/W": 7}], harm) == []


def test_the_last_step_has_the_exact_optimum_and_uniform_among_its_candidates():
    own = space(weights_kib=(2400 * 6 - 800) / KIB)
    bits = {**EIGHT, "l0/W": 6, "l1/W": 6}
    # One bit of l0 is all that is to go: the candidate takes both, and gets l1's back or l0's.
    found = last_steps(own, bits, [{**bits, "l0/W": 5, "l1/W": 5}], {"l0/W": 0.1, "l1/W": 5.0})
    assert {**EIGHT, "l0/W": 5, "l1/W": 6} in found
    assert dict.fromkeys(WIDTHS, 5) in found
    assert all(own.met(candidate) for candidate in found)
    assert all(is_full(own, candidate) for candidate in found if len(set(candidate.values())) > 1)


def test_a_jump_has_the_least_harm_of_all_that_meet_the_budget():
    widths = {"l0/W": (2, 4, 8), "l1/W": (2, 4, 8), "a0/relu": (8,), "a1/relu": (8,)}
    own = space(1, widths, weights_kib=2400 * 4 / KIB)
    for harm in ({"l0/W": 3.0, "l1/W": 1.0}, {"l0/W": 0.01, "l1/W": 1.0}):

        def total(bits, harm=harm):
            # From 8 bits the first step takes 4: the squared error grows by 4^4 - 1 then.
            return sum(harm[n] * (4.0 ** (8 - bits[n]) - 1) / (4.0**4 - 1) for n in harm)

        every = [dict(zip(widths, bits)) for bits in itertools.product(*widths.values())]
        least = min((bits for bits in every if own.met(bits)), key=total)
        assert jump(own, EIGHT, harm) == least


@settings(deadline=None, max_examples=60)
@given(problems())
def test_any_budget_that_can_be_met_is_met_and_filled(problem):
    net, losses, fixed, budget = problem
    if not losses:
        return
    own = Space(net, {name: tuple(sorted(by)) for name, by in losses.items()}, fixed, budget)
    start = {name: widths[-1] for name, widths in own.widths.items()}
    harm = {name: float(len(name)) for name in start}
    if own.met(start):
        assert own.excess(start) == 0.0
        return
    assert own.excess(start) > 0.0
    found = jump(own, start, harm)
    assert budget.met_by(cost(net, {**fixed, **found})) and is_full(own, found)
