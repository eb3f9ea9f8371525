from __future__ import annotations

import pytest

from nnmpq.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.03), (79, 0.03), (80, 0.003), (119, 0.003), (120, 0.0003), (159, 0.0003)]
)
def test_published_schedule(epoch, expected):
    assert learning_rate(0.03, (80, 120), 0.1, epoch) == pytest.approx(expected)


def test_without_milestones_the_rate_stays():
    assert [learning_rate(0.1, (), 0.1, epoch) for epoch in (0, 1000)] == [0.1, 0.1]


def test_two_milestones_at_once_count_twice():
    assert learning_rate(1.0, (3, 3), 0.5, 3) == 0.25
