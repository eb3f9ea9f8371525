"""The multiple-choice knapsack: one option of each unit, least loss within a capacity; exact and quick."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import numpy as np


@attrs.frozen(eq=False, slots=False)
class Units:
    """Options of each unit; those that another one of the unit beats in cost and loss are left out.

    Args:
        costs: of each unit, whole numbers, ascending, float64, shape (n,).
        losses: of the same options, descending.
    """

    costs: Sequence[np.ndarray]
    losses: Sequence[np.ndarray]

    @property
    def least(self) -> float:
        """Cost of the cheapest options together."""
        return float(sum(cost[0] for cost in self.costs))

    @property
    def most(self) -> float:
        """Cost of the options without any avoidable loss."""
        return float(sum(cost[-1] for cost in self.costs))

    @functools.cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps along the lower hulls, the best loss per cost first: slope, unit, option reached, added cost."""
        found = []
        for unit, (cost, loss) in enumerate(zip(self.costs, self.losses)):
            hull = lower_hull(cost, loss)
            for before, after in zip(hull[:-1], hull[1:]):
                added = cost[after] - cost[before]
                found.append(((loss[before] - loss[after]) / added, unit, after, added))
        found.sort(key=lambda step: (-step[0], step[1], step[2]))
        table = np.array(found, np.float64).reshape(-1, 4)
        return table[:, 0], table[:, 1].astype(int), table[:, 2].astype(int), table[:, 3]


def lower_hull(cost: np.ndarray, loss: np.ndarray) -> list[int]:
    """Return the options on the lower convex hull of (cost, loss), ascending in cost.

    Example:
        >>> lower_hull(np.array([1.0, 2.0, 3.0]), np.array([4.0, 3.5, 0.0]))
        [0, 2]
    """
    hull: list[int] = []
    for point in range(len(cost)):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (loss[a] - loss[b]) * (cost[point] - cost[b]) > (loss[b] - loss[point]) * (cost[b] - cost[a]):
                break
            hull.pop()
        hull.append(point)
    return hull


def undominated(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return the options that no other beats in both, ascending in cost; the first of equal ones.

    Example:
        >>> undominated(np.array([3.0, 1.0, 2.0, 1.0]), np.array([0.0, 5.0, 5.0, 4.0])).tolist()
        [3, 0]
    """
    order = np.lexsort((loss, cost))
    before = np.minimum.accumulate(np.concatenate([[np.inf], loss[order][:-1]]))
    return order[loss[order] < before]


def solve(units: Units, capacity: float) -> list[int]:
    """Return the option of each unit with the least loss together that cost no more than the capacity.

    With the multiplier l of the linear relaxation, its bound L and the reduced losses
    r_uj = loss_uj + l cost_uj - min_i (loss_ui + l cost_ui), a solution with slack s loses L + sum r + l s. Options and
    partial solutions that cannot stay below the best known loss are left out; what remains is enumerated unit by unit,
    without the partial solutions that another one beats in cost and reduced loss.

    Args:
        units: their options.
        capacity: at least `units.least`.

    Raises:
        ValueError: the capacity is less than the cheapest options cost.

    Example:
        >>> costs, losses = [np.array([1.0, 2.0, 4.0])] * 2, [np.array([5.0, 2.0, 0.0]), np.array([9.0, 3.0, 0.0])]
        >>> solve(Units(costs, losses), 6.0)
        [1, 2]

    Source:
        Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 1995: the core of the relaxation.
    """
    if capacity < units.least:
        raise ValueError(f"capacity {capacity:g}: the cheapest options cost {units.least:g}")
    multiplier, best = _greedy(units, capacity)
    relaxed = [loss + multiplier * cost for cost, loss in zip(units.costs, units.losses)]
    bound = sum(float(np.min(values)) for values in relaxed) - multiplier * capacity
    known = _total(units.losses, best)
    # Rounding must not cut the optimum off.
    gap = known - bound + 1e-12 * max(abs(known), abs(bound), 1e-300)
    reduced = [values - np.min(values) for values in relaxed]
    found = _enumerate(units, capacity, multiplier, reduced, gap)
    if found is None:
        return best
    return min(found, best, key=lambda chosen: (_total(units.losses, chosen), _total(units.costs, chosen)))


def _total(values: Sequence[np.ndarray], chosen: Sequence[int]) -> float:
    return float(sum(own[index] for own, index in zip(values, chosen)))


def _greedy(units: Units, capacity: float) -> tuple[float, list[int]]:
    """The relaxation's multiplier, and a solution: steps along the hulls as long as they fit, then what still fits."""
    slopes, owners, reached, added = units.steps
    chosen = [0] * len(units.costs)
    room = capacity - units.least
    fits = np.cumsum(added) <= room
    count = int(np.argmin(fits)) if not fits.all() else len(fits)
    for owner, option in zip(owners[:count], reached[:count]):
        chosen[owner] = int(option)
    multiplier = float(slopes[count]) if count < len(slopes) else 0.0
    room -= float(np.sum(added[:count]))
    while True:
        gains = []
        for unit, (cost, loss) in enumerate(zip(units.costs, units.losses)):
            here = chosen[unit]
            option = int(np.searchsorted(cost, cost[here] + room, side="right")) - 1
            if option > here:
                gains.append((loss[here] - loss[option], unit, option))
        if not gains:
            return multiplier, chosen
        _, unit, option = max(gains)
        room -= float(units.costs[unit][option] - units.costs[unit][chosen[unit]])
        chosen[unit] = option


def _enumerate(
    units: Units, capacity: float, multiplier: float, reduced: Sequence[np.ndarray], gap: float
) -> list[int] | None:
    """Go through all solutions that lose less than the best known one; None where there is none."""
    left = [np.flatnonzero(own <= gap) for own in reduced]
    # Units with the most to choose last: the lists stay short for longest.
    order = sorted(range(len(left)), key=lambda unit: len(left[unit]))
    least = np.array([units.costs[unit][left[unit][0]] for unit in order])
    most = np.array([units.costs[unit][left[unit][-1]] for unit in order])
    least_after, most_after = (np.append(np.cumsum(a[::-1])[::-1][1:], 0.0) for a in (least, most))
    cost, lost = np.zeros(1), np.zeros(1)
    history = []
    for place, unit in enumerate(order):
        options = left[unit]
        costs = (cost[:, None] + units.costs[unit][options]).ravel()
        losses = (lost[:, None] + reduced[unit][options]).ravel()
        slack = np.maximum(capacity - costs - most_after[place], 0.0)
        possible = np.flatnonzero((costs + least_after[place] <= capacity) & (losses + multiplier * slack <= gap))
        if not len(possible):
            return None
        possible = possible[undominated(costs[possible], losses[possible] - multiplier * costs[possible])]
        history.append((unit, options, possible))
        cost, lost = costs[possible], losses[possible]
    chosen = [0] * len(order)
    state = int(np.argmin(lost + multiplier * (capacity - cost)))
    for unit, options, possible in reversed(history):
        state, option = divmod(int(possible[state]), len(options))
        chosen[unit] = int(options[option])
    return chosen
