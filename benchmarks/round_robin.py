"""Contenders taking turns, and the statistics of their ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# Seconds a step by round; a contender that sat a round out has none for it.
Times = Mapping[int, float]


class Spread(NamedTuple):
    """Least, median and most of some numbers."""

    least: float
    median: float
    most: float


def spread(numbers: Sequence[float]) -> Spread:
    """Return least, median and most.

    Raises:
        ValueError: there are no numbers.

    Example:
        >>> spread([3.0, 1.0, 2.5])
        Spread(least=1.0, median=2.5, most=3.0)
    """
    if not numbers:
        raise ValueError("no numbers: the two contenders shared no round")
    return Spread(min(numbers), statistics.median(numbers), max(numbers))


def take_turns(
    turns: Mapping[str, Callable[[], Sequence[float]]], rounds: int, limits: Mapping[str, int]
) -> dict[str, dict[int, float]]:
    """Let every contender run once a round, in an order that moves on.

    What else the machine does falls on all alike; who runs after whom changes from round to round.

    Args:
        turns: by contender, what runs some steps and returns the seconds of each.
        rounds: number of rounds.
        limits: number of rounds of those that take part in fewer, spread evenly over all.

    Returns:
        By contender and round, the median of the turn's seconds.

    Example:
        >>> take_turns({"a": lambda: [1.0, 3.0, 2.0], "b": lambda: [5.0]}, 2, {"b": 1})
        {'a': {0: 2.0, 1: 2.0}, 'b': {0: 5.0}}
    """
    names = list(turns)
    seconds: dict[str, dict[int, float]] = {name: {} for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            share = min(limits.get(name, rounds), rounds)
            # True in `share` of the rounds, the first among them.
            if turn * share % rounds < share:
                seconds[name][turn] = statistics.median(turns[name]())
    return seconds


def ratios(seconds: Times, base: Times) -> list[float]:
    """Return the quotients of two contenders' times in the rounds that both took part in.

    Example:
        >>> ratios({0: 3.0, 1: 4.0, 2: 6.0}, {0: 1.0, 2: 4.0})
        [3.0, 1.5]
    """
    return [seconds[turn] / base[turn] for turn in sorted(seconds.keys() & base.keys())]


def fastest(contenders: Mapping[str, Times]) -> str | None:
    """Return the contender with the least median; None where there is none.

    Example:
        >>> fastest({"a": {0: 1.0, 1: 9.0, 2: 9.0}, "b": {0: 2.0, 1: 2.0, 2: 8.0}})
        'b'
    """
    medians = {name: statistics.median(times.values()) for name, times in contenders.items() if times}
    return min(medians, key=medians.__getitem__) if medians else None
