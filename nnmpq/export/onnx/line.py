"""A requantiser in float32: a line, and the few sums at which no line can be trusted."""

from __future__ import annotations

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError, Requantiser
from nnmpq.export.integer.requantise import thresholds
from nnmpq.export.integer.saved import levels_of

# Runtimes multiply and add in two roundings or in one; the line keeps this far from every boundary, relative.
DOUBT = 2.0**-21
# float32 holds every whole number up to here, and so every partial sum, in any order.
LARGEST_SUM = 2**24
MOST_EXCEPTIONS = 4096


@attrs.frozen(eq=False)
class FloatLine:
    """number = round(sum * slope + offset), held between two levels; but for exceptions.

    Args:
        slope: float32 (C,) or (1,), in steps of the grid.
        offset: float32, same shape.
        low: lowest number.
        high: highest number.
        exception_sum: float32 (C, E): sums that have their number given; NaN fills rows.
        exception_number: float32 (C, E): the numbers.
    """

    slope: np.ndarray
    offset: np.ndarray
    low: int
    high: int
    exception_sum: np.ndarray
    exception_number: np.ndarray


@attrs.frozen(eq=False)
class Stairs:
    """number = first + sum of the rises whose threshold the sum, times its sign, reaches.

    Args:
        sign: float32 (C,) or (1,).
        threshold: float32 (C, K), whole numbers.
        rise: float32 (K,).
        first: the lowest number.
    """

    sign: np.ndarray
    threshold: np.ndarray
    rise: np.ndarray
    first: int


def _steps(made: Requantiser, low: np.ndarray, high: np.ndarray, where: str) -> tuple[np.ndarray, ...]:
    """Sign of each channel, ends of sign * sum, and the thresholds of sign * sum."""
    if max(-int(low.min()), int(high.max())) > LARGEST_SUM:
        raise ExportError(
            f"{where}: sums reach {max(-int(low.min()), int(high.max())):,}; float32 holds whole numbers up to "
            f"{LARGEST_SUM:,} alone: lower the bits of what it reads"
        )
    sign = np.where(made.multiplier < 0, -1, 1).astype(np.int64)
    least, largest = np.where(sign < 0, -high, low), np.where(sign < 0, -low, high)
    level_of = levels_of(made)
    return sign, least, largest, thresholds(lambda p: level_of(p * sign), made.levels, least, largest)


def float_line(made: Requantiser, low: np.ndarray, high: np.ndarray, where: str) -> FloatLine:
    """Return a uniform requantiser as a line in float32.

    The integer line lies in the middle of the room that the thresholds leave, so that no sum that can occur lies on a
    tie, however a runtime rounds ties. Where a threshold is nearer than float32 can tell, its sums are listed.

    Args:
        made: the requantiser, with a shift.
        low: smallest sum that can occur, int64, as many as it has channels.
        high: largest.
        where: name for messages.

    Raises:
        ExportError: sums are too large for float32, or it decides too many levels by its rounding.

    Example:
        >>> halves = Requantiser(np.array([2], np.int32), np.array([3]), np.array([2], np.uint8), 8, 0)
        >>> line = float_line(halves, np.array([0]), np.array([14]), "here")  # (2 s + 3) >> 2
        >>> float(line.slope[0]), float(line.offset[0]), line.exception_sum.shape
        (0.5, 0.25, (1, 0))
    """
    assert made.edges is None
    sign, least, largest, wanted = _steps(made, low, high, where)
    scale = 2.0 ** made.shift.astype(np.float64)
    slope = (made.multiplier / scale).astype(np.float32)
    # floor(a) = round(a - 1/2) but at ties, which the doubt covers.
    offset = (made.bias / scale + made.low - 0.5).astype(np.float32)
    steepness, shift = np.abs(slope.astype(np.float64)), offset.astype(np.float64) - made.low

    def reached(side: int) -> np.ndarray:
        def level_of(p: np.ndarray) -> np.ndarray:
            doubt = DOUBT * (np.abs(p) * steepness + np.abs(offset) + 1.0)
            # Computed number + doubt >= k - 1/2, the earliest sum of a level; or with doubt below it, the latest.
            found = np.floor(p * steepness + shift + 0.5 + side * doubt)
            return np.clip(found, 0, made.levels - 1).astype(np.int64)

        return thresholds(level_of, made.levels, least, largest)

    first = np.minimum(reached(1), wanted)
    end = np.maximum(reached(-1), wanted)
    count = int(np.sum(end - first))
    if count > MOST_EXCEPTIONS:
        raise ExportError(f"{where}: float32 decides the level of {count:,} sums by its rounding alone; use fewer bits")
    listed: list[list[int]] = [[] for _ in sign]
    for k, c in zip(*np.nonzero(end > first)):
        listed[c].extend(range(int(first[k, c]), int(end[k, c])))
    sums, numbers = _table(made, [sorted({int(sign[c]) * p for p in row}) for c, row in enumerate(listed)])
    return FloatLine(slope, offset, made.low, made.low + made.levels - 1, sums, numbers)


def _table(made: Requantiser, listed: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    width = max(len(row) for row in listed)
    sums = np.full((len(listed), width), np.nan, np.float32)
    numbers = np.zeros((len(listed), width), np.float32)
    level_of = levels_of(made)
    for place in range(width):
        column = np.array([row[place] if place < len(row) else 0 for row in listed], np.int64)
        numbers[:, place] = level_of(column[None])[0] + made.low
        sums[:, place] = [row[place] if place < len(row) else np.nan for row in listed]
    return sums, numbers


def stairs(made: Requantiser, low: np.ndarray, high: np.ndarray, where: str) -> Stairs:
    """Return any requantiser by its thresholds; arguments and errors as of `float_line`.

    Example:
        >>> powers = Requantiser(
        ...     np.array([1], np.int32), np.array([0]), np.array([0], np.uint8), 3, 0,
        ...     edges=np.array([2, 5]), values=np.array([1, 2, 4], np.int32))
        >>> made = stairs(powers, np.array([0]), np.array([9]), "here")
        >>> made.threshold.tolist(), made.rise.tolist(), made.first
        ([[2.0, 5.0]], [1.0, 2.0], 1)
    """
    sign, _, _, found = _steps(made, low, high, where)
    values = made.low + np.arange(made.levels) if made.values is None else made.values
    rise = np.diff(values).astype(np.float32)
    return Stairs(sign.astype(np.float32), found.T.astype(np.float32), rise, int(values[0]))
