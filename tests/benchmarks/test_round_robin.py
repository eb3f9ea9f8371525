from __future__ import annotations

import functools

import pytest

from benchmarks.round_robin import Spread, fastest, ratios, spread, take_turns


def test_the_order_moves_on_and_all_run_once_a_round() -> None:
    calls: list[str] = []

    def turn(name: str) -> list[float]:
        calls.append(name)
        return [1.0]

    take_turns({name: functools.partial(turn, name) for name in "abc"}, 4, {})
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"


def test_a_turn_counts_by_the_median_of_its_steps() -> None:
    times = iter([[9.0, 1.0, 2.0], [4.0, 6.0]])
    assert take_turns({"a": lambda: next(times)}, 2, {}) == {"a": {0: 2.0, 1: 5.0}}


@pytest.mark.parametrize(
    ("rounds", "share", "expected"),
    [(9, 3, [0, 3, 6]), (4, 4, [0, 1, 2, 3]), (5, 1, [0]), (3, 7, [0, 1, 2]), (7, 3, [0, 3, 5])],
)
def test_few_rounds_are_spread_evenly(rounds: int, share: int, expected: list[int]) -> None:
    seconds = take_turns({"a": lambda: [1.0], "slow": lambda: [8.0]}, rounds, {"slow": share})
    assert list(seconds["slow"]) == expected
    assert list(seconds["a"]) == list(range(rounds))


def test_ratios_are_of_the_same_round() -> None:
    assert ratios({0: 8.0, 3: 9.0}, {0: 2.0, 1: 5.0, 3: 3.0}) == [4.0, 3.0]
    assert ratios({0: 8.0}, {1: 2.0}) == []


def test_spread_of_even_and_odd_counts() -> None:
    assert spread([4.0, 1.0, 2.0, 9.0]) == Spread(1.0, 3.0, 9.0)
    assert spread([5.0]) == (5.0, 5.0, 5.0)
    with pytest.raises(ValueError, match="shared no round"):
        spread([])


def test_fastest_goes_by_the_median_not_the_minimum() -> None:
    assert fastest({"lucky": {0: 0.1, 1: 5.0, 2: 5.0}, "steady": {0: 4.0, 1: 4.0, 2: 4.0}}) == "steady"
    assert fastest({"absent": {}}) is None
