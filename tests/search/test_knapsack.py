"""The multiple-choice knapsack against all solutions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.search.knapsack import Units, lower_hull, solve, undominated


@st.composite
def knapsacks(draw):
    """Units whose options rise in cost and fall in loss, and a capacity between the least and the most."""
    units = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 4))
        costs = np.cumsum(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))).astype(float)
        number = draw(st.sampled_from([st.integers(1, 5).map(float), st.floats(0.01, 9.0)]))
        drops = draw(st.lists(number, min_size=count, max_size=count))
        units.append((costs, np.cumsum(drops)[::-1].copy()))
    made = Units([costs for costs, _ in units], [losses for _, losses in units])
    return made, made.least + draw(st.floats(0.0, 1.1)) * (made.most - made.least)


@given(knapsacks())
def test_it_is_the_optimum(problem):
    units, capacity = problem
    found = solve(units, capacity)
    every = itertools.product(*(range(len(costs)) for costs in units.costs))
    priced = [
        (sum(c[i] for c, i in zip(units.costs, own)), sum(v[i] for v, i in zip(units.losses, own))) for own in every
    ]
    least = min(loss for price, loss in priced if price <= capacity)
    assert sum(costs[i] for costs, i in zip(units.costs, found)) <= capacity
    assert sum(losses[i] for losses, i in zip(units.losses, found)) == pytest.approx(least, rel=1e-12)


def test_less_than_the_cheapest_is_refused():
    with pytest.raises(ValueError, match="capacity 2: the cheapest options cost 3"):
        solve(Units([np.array([3.0, 4.0])], [np.array([1.0, 0.0])]), 2.0)


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8)


@given(points)
def test_undominated_options_ascend_and_no_other_beats_them(pairs):
    cost, loss = np.array(pairs, float).T
    kept = undominated(cost, loss)
    assert np.all(np.diff(cost[kept]) > 0) and np.all(np.diff(loss[kept]) < 0)
    for c, v in pairs:
        # Whatever is left out, one that is kept is as good.
        assert any(cost[i] <= c and loss[i] <= v for i in kept)


@given(points)
def test_the_hull_lies_below_every_option(pairs):
    cost, loss = np.array(pairs, float).T
    kept = undominated(cost, loss)
    cost, loss = cost[kept], loss[kept]
    hull = lower_hull(cost, loss)
    assert hull[0] == 0 and hull[-1] == len(cost) - 1
    assert np.all(np.interp(cost, cost[hull], loss[hull]) <= loss + 1e-9)
    slopes = np.diff(loss[hull]) / np.diff(cost[hull])
    assert np.all(np.diff(slopes) > 0)
