"""Multiplier, bias and shift that put every sum into the level that the trained network puts it into.

A layer's sum is a whole number; what follows it in the trained network (batch normalization, ReLU, quantizer) takes
float32 and rounds, but is monotone. So it is known by its thresholds, the smallest sum of each level, and those are
found by asking the trained functions themselves. Multiplier and bias are then chosen to meet all of them.
"""

from __future__ import annotations

from typing import Callable

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError, Requantiser

MULTIPLIER_BITS = 31
# |sum * multiplier| and levels << shift stay below this each, so that their sum fits in 64 bits.
LARGEST = 2**61
LARGEST_SUM = 2**30 - 1
# The multiplier is looked for in this neighbourhood: float32 moves a slope by less.
NEIGHBOURHOOD = 2**20
MOST_EXCEPTIONS = 4096
Levels = Callable[[np.ndarray], np.ndarray]


@attrs.frozen(eq=False)
class Grid:
    """Levels of a tensor.

    Args:
        levels: how many.
        low: number of the lowest, uniform grids.
        values: numbers of all, ascending, int32; None for uniform grids.
    """

    levels: int
    low: int
    values: np.ndarray | None = None

    def boundaries(self) -> np.ndarray | None:
        """Real numbers between the levels of a power-of-two grid; None for uniform grids, halfway."""
        if self.values is None:
            return None
        below, above = self.values[:-1].astype(np.float64), self.values[1:].astype(np.float64)
        geometric = np.sign(below + above) * np.sqrt(np.abs(below * above))
        # Between zero and the smallest magnitude m lies m / sqrt(2).
        return np.where(below * above == 0, (below + above) / np.sqrt(2.0), geometric)


def thresholds(level_of: Levels, levels: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the smallest sum of each level from 1 on, by bisection.

    Args:
        level_of: sums int64 (K, C) to levels (K, C), not falling with the sum.
        levels: K + 1.
        low: smallest sum of each channel, int64 (C,).
        high: largest sum of each channel.

    Returns:
        int64 (K, C); low where every sum is in the level or above, high + 1 where none is.

    Example:
        >>> thresholds(lambda s: s // 10, 4, np.array([5]), np.array([29])).ravel().tolist()
        [10, 20, 30]
    """
    wanted = np.arange(1, levels)[:, None]
    below = np.repeat(low[None] - 1, levels - 1, 0)
    above = np.repeat(high[None] + 1, levels - 1, 0)
    while np.any(above - below > 1):
        middle = (above + below) // 2
        # Where the search is over the middle is `below`, which may lie outside the range.
        reached = level_of(np.clip(middle, low[None], high[None])) >= wanted
        open_ = above - below > 1
        above = np.where(open_ & reached, middle, above)
        below = np.where(open_ & ~reached, middle, below)
    return above


@attrs.frozen(eq=False)
class _Bounds:
    """Lower bounds bias >= edge - multiplier * at, upper bounds bias <= edge - 1 - multiplier * at, all (K, C)."""

    edges: np.ndarray
    first: np.ndarray
    has_first: np.ndarray
    last: np.ndarray
    has_last: np.ndarray

    def interval(self, multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Least and largest bias, and whether a larger multiplier would widen what lies between."""
        lower = np.where(self.has_first, self.edges - multiplier * self.first, -2 * LARGEST)
        upper = np.where(self.has_last, self.edges - 1 - multiplier * self.last, 2 * LARGEST - 1)
        i, j = lower.argmax(0), upper.argmin(0)
        channels = np.arange(lower.shape[1])
        return lower[i, channels], upper[j, channels], self.first[i, channels] > self.last[j, channels]


def fit(
    level_of: Levels,
    grid: Grid,
    slope: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    where: str,
) -> Requantiser:
    """Return the requantiser that agrees with the trained network on every sum that can occur.

    Args:
        level_of: the trained network: sums int64 (K, C) to levels (K, C), monotone in the sum.
        grid: the levels.
        slope: real: what one more in the sum adds, in steps of the grid, float64 (C,).
        low: smallest sum that can occur, int64 (C,).
        high: largest sum that can occur.
        where: name for messages.

    Raises:
        ExportError: a sum can leave the range in which 64 bits hold every product.
    """
    if max(np.max(np.abs(low)), np.max(np.abs(high))) > LARGEST_SUM:
        raise ExportError(f"{where}: sums reach {int(max(-low.min(), high.max()))}, more than {LARGEST_SUM}")
    if not np.all(np.isfinite(slope)):
        raise ExportError(f"{where}: batch normalization has a gain that is not finite")
    sign = np.where(slope < 0, -1, 1)
    least, largest = np.where(sign < 0, -high, low), np.where(sign < 0, -low, high)
    found = thresholds(lambda p: level_of(p * sign), grid.levels, least, largest)
    grid, found = _reachable(grid, found, least, largest)
    boundaries = grid.boundaries()
    if boundaries is None:
        spare = int(LARGEST).bit_length() - 1 - int(grid.levels).bit_length()
        shift = _shift(np.abs(slope), spare)
        edges = np.arange(1, grid.levels, dtype=np.int64)[:, None] << shift[None]
    else:
        spare = int(LARGEST).bit_length() - 2 - int(np.ceil(np.max(np.abs(boundaries)))).bit_length()
        # One table of edges serves every channel, and so one shift, the steepest channel's.
        shift = np.full(len(slope), _shift(np.max(np.abs(slope), keepdims=True), spare)[0])
        edges = np.rint(boundaries * 2.0 ** shift[0]).astype(np.int64)[:, None] + np.zeros_like(shift)[None]
    bounds = _Bounds(edges, found, found <= largest[None], found - 1, found > least[None])
    multiplier = np.minimum(np.rint(np.abs(slope) * 2.0**shift), 2.0**MULTIPLIER_BITS - 1).astype(np.int64)
    multiplier, bias = _choose(bounds, multiplier)
    channel, sums, correction = _exceptions(bounds, multiplier, bias, least, largest, where)
    made = Requantiser(
        (sign * multiplier).astype(np.int32),
        bias,
        shift.astype(np.uint8),
        grid.levels,
        grid.low,
        exception_channel=channel,
        exception_sum=(sums * sign[channel]).astype(np.int32),
        exception_correction=correction,
    )
    if boundaries is None:
        return made
    return attrs.evolve(made, shift=np.zeros_like(made.shift), low=0, edges=edges[:, 0], values=grid.values)


def as_it_is(low: int, high: int, channels: int = 1) -> Requantiser:
    """Return the requantiser that leaves sums from low to high as they are.

    Example:
        >>> made = as_it_is(-3, 5)
        >>> int(made.bias[0]), made.levels, made.low
        (3, 9, -3)
    """
    ones = np.ones(channels, np.int32)
    return Requantiser(ones, np.int64(-low) * ones, np.zeros(channels, np.uint8), high - low + 1, low)


def _reachable(grid: Grid, found: np.ndarray, least: np.ndarray, largest: np.ndarray) -> tuple[Grid, np.ndarray]:
    """Leave out the levels below and above what any sum reaches.

    A clip such as ReLU6 can end below the grid. A line does not bend there; the ends of the levels hold it.
    """
    first, end = int(np.sum(np.all(found <= least, 1))), int(np.sum(np.any(found <= largest, 1)))
    if end <= first:
        # One level for all sums: it and a neighbour that none reaches.
        first = min(first, len(found) - 1)
        end = first + 1
    if grid.values is not None:
        return Grid(end - first + 1, grid.low, grid.values[first : end + 1]), found[first:end]
    return Grid(end - first + 1, grid.low + first), found[first:end]


def _shift(slope: np.ndarray, spare: int) -> np.ndarray:
    """The largest shift at which the multiplier fits, at most `spare`."""
    exponent = np.frexp(np.maximum(slope, 2.0**-200))[1]
    return np.clip(MULTIPLIER_BITS - 1 - exponent, 0, spare).astype(np.int64)


def _choose(bounds: _Bounds, multiplier: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and bias that meet all bounds, or come nearest to it.

    The room for the bias is a concave function of the multiplier; where there is none at the slope itself, its maximum
    is found by bisection on the sign of its derivative.
    """
    lower, upper, _ = bounds.interval(multiplier)
    narrow = lower > upper
    if np.any(narrow):
        least = np.maximum(multiplier - NEIGHBOURHOOD, 0)
        largest = np.minimum(multiplier + NEIGHBOURHOOD, 2**MULTIPLIER_BITS - 1)
        best, room = multiplier, upper - lower
        while np.any(largest - least > 1):
            middle = (least + largest) // 2
            lower, upper, rising = bounds.interval(middle)
            better = narrow & (upper - lower > room)
            best, room = np.where(better, middle, best), np.where(better, upper - lower, room)
            least, largest = np.where(rising, middle, least), np.where(rising, largest, middle)
        multiplier = best
        lower, upper, _ = bounds.interval(multiplier)
    return multiplier, lower + (upper - lower) // 2


def _exceptions(
    bounds: _Bounds, multiplier: np.ndarray, bias: np.ndarray, least: np.ndarray, largest: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sums at which float32 rounds past what a straight line can follow: channel, sum, levels to add.

    Where steps of the sum are as fine as float32 itself, a threshold of the trained network lies a sum or two beside
    the line's; those sums are named one by one.
    """
    wanted = bounds.last + 1
    # The smallest sum with multiplier * sum + bias >= edge.
    reached = -((bias - bounds.edges) // np.maximum(multiplier, 1))
    reached = np.where(multiplier > 0, reached, np.where(bias >= bounds.edges, least, largest + 1))
    reached = np.clip(reached, least, largest + 1)
    found: dict[tuple[int, int], int] = {}
    rows, channels = np.nonzero(reached != wanted)
    if np.sum(np.abs(reached - wanted)) > MOST_EXCEPTIONS:
        raise ExportError(
            f"{where}: float32 decides {int(np.sum(np.abs(reached - wanted)))} levels by its rounding alone; "
            "use fewer bits there, or clamp the gains of batch normalization"
        )
    for k, c in zip(rows, channels):
        first, last = sorted((int(reached[k, c]), int(wanted[k, c])))
        for at in range(first, last):
            found[int(c), at] = found.get((int(c), at), 0) + (1 if wanted[k, c] < reached[k, c] else -1)
    entries = sorted((c, at, change) for (c, at), change in found.items() if change)
    table = np.array(entries, np.int64).reshape(-1, 3)
    return table[:, 0].astype(np.int32), table[:, 1], table[:, 2].astype(np.int8)
