"""Dominance against its definition, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmpq.search.dominance import non_dominated

# Small whole numbers tie often.
tables = st.integers(1, 3).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 3).map(float), min_size=k, max_size=k), min_size=1, max_size=12)
)


@given(tables)
def test_a_point_stays_unless_another_one_is_as_good_everywhere_and_better_once(points):
    table = np.array(points)
    expected = [
        not any(
            (all(q <= p for q, p in zip(other, point)) and other != point) or (other == point and j < i)
            for j, other in enumerate(points)
        )
        for i, point in enumerate(points)
    ]
    assert non_dominated(table).tolist() == expected


@given(tables, st.randoms())
def test_the_order_of_the_points_decides_nothing_but_which_of_equal_ones(points, random):
    shuffled = list(points)
    random.shuffle(shuffled)
    kept = [
        sorted(tuple(p) for p, keep in zip(order, non_dominated(np.array(order))) if keep)
        for order in (points, shuffled)
    ]
    assert kept[0] == kept[1]


def test_a_coordinate_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="point 1 has a coordinate that is not a number"):
        non_dominated(np.array([[0.0, 1.0], [np.nan, 0.0]]))
    assert non_dominated(np.array([[np.inf, 0.0], [1.0, 1.0]])).tolist() == [True, True]
