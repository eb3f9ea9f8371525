"""Bias and scale with which the format's kernels come nearest to a requantiser.

A kernel computes round((fill * sum + bias) * rate), with a whole bias: one of its steps is 1 / fill of a sum, and a sum
of few bits may be worth a good part of a level. So the nearest bias alone misses levels; bias and rate are chosen
together, by how many sums they put into another level.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np

from nnmpq.export.integer.program import Requantiser
from nnmpq.export.integer.requantise import thresholds
from nnmpq.export.integer.saved import levels_of
from nnmpq.export.tflite.rounding import ROUNDINGS, multiplied, multiplier_of

# Sums and biases stay below this, so that 32 bits hold them and what they become.
LARGEST = 2.0**29
LARGEST_BIAS = 2.0**28
SMALLEST_RATE = 2.0**-30
# The line's biases around the nearest one, and the places (parts of the levels) that it is turned about.
NEIGHBOURS = (0, -1, 1, -2, 2)
PIVOTS = (0.5, 0.25, 0.75)
LARGEST_TURN = 0.1
# Of more levels, so many are looked at.
MOST_LEVELS = 32
# Slopes are often powers of two, with sums right between two levels: rates beside them lead off.
TILTS = (1.0, 1 + 2.0**-10, 1 - 2.0**-10)
NEAR = np.array([-2, -1, 0, 1])
# Runtimes are built with two roundings unless they are told otherwise.
ROUNDING_WEIGHTS = (4, 1)


@attrs.frozen(eq=False)
class KernelLine:
    """number = round((fill * sign * sum + bias) * rate).

    Args:
        sign: int64 (C,), 1 or -1; goes into the weights.
        bias: int64 (C,).
        rate: float64 (C,), positive; a float32 times `unit`.
        scale: float32 (C,): rate / unit, the weights' scale in the file.
        flat: bool (C,): every sum becomes the same number, and the weights can be 0.
        missed: int64 (C,): how many sums beside thresholds are on the wrong side, weighted by `ROUNDING_WEIGHTS`.
    """

    sign: np.ndarray
    bias: np.ndarray
    rate: np.ndarray
    scale: np.ndarray
    flat: np.ndarray
    missed: np.ndarray


def nearest_line(slope: np.ndarray, offset: np.ndarray, reach: np.ndarray, fill: int, unit: float) -> KernelLine:
    """Return the line number = slope * sum + offset with the nearest whole bias.

    Args:
        slope: float64 (C,).
        offset: float64 (C,).
        reach: largest |sum|, (C,).
        fill: what the weights are multiplied by to fill their container.
        unit: scale of the input over scale of the output.

    Example:
        >>> line = nearest_line(np.array([-0.5]), np.array([3.2]), np.array([100]), 7, 1.0)
        >>> int(line.sign[0]), int(line.bias[0]), round(float(line.rate[0]) * 7, 6)
        (-1, 45, 0.5)
    """
    sign = np.where(slope < 0, -1, 1)
    rate = np.maximum(np.abs(slope) / fill, np.maximum(np.abs(offset) / LARGEST_BIAS, SMALLEST_RATE))
    bias = np.rint(offset / rate)
    # A steeper line than this goes through all levels within one sum.
    rate = np.minimum(rate, LARGEST / (fill * reach + np.abs(bias) + 1))
    scale = (rate / unit).astype(np.float32)
    flat = np.zeros(len(sign), bool)
    missed = np.zeros(len(sign), np.int64)
    return KernelLine(sign, bias.astype(np.int64), scale.astype(np.float64) * unit, scale, flat, missed)


def _rates(
    slope: np.ndarray, offset: np.ndarray, fill: int, wanted: np.ndarray, bias: np.ndarray, rate: np.ndarray
) -> Iterator[np.ndarray]:
    """The nearest rate, and those that keep the line's height at some level when the bias moves."""
    yield rate
    for pivot in PIVOTS:
        at = wanted[int(pivot * (len(wanted) - 1))]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            turned = (np.abs(slope) * at + offset) / (fill * at + bias)
            yield np.where(np.abs(turned / rate - 1) < LARGEST_TURN, turned, rate)


def fit_line(made: Requantiser, low: np.ndarray, high: np.ndarray, fill: int, unit: float) -> KernelLine:
    """Return the line that misses the fewest levels of a uniform requantiser.

    Args:
        made: the requantiser.
        low: smallest sum that can occur, int64, as many as it has channels.
        high: largest.
        fill: what the weights are multiplied by to fill their container.
        unit: scale of the input over scale of the output.

    Example:
        >>> made = Requantiser(np.array([3], np.int32), np.array([9]), np.array([3], np.uint8), 16, 0)
        >>> line = fit_line(made, np.array([-50]), np.array([50]), 7, 0.25)  # (3 s + 9) >> 3
        >>> int(line.missed[0]), int(np.floor((7 * 11 + line.bias[0]) * line.rate[0] + 0.5)), (3 * 11 + 9) >> 3
        (0, 5, 5)
    """
    power = 2.0 ** made.shift.astype(np.float64)
    slope, offset = made.multiplier / power, made.bias / power + made.low - 0.5
    reach = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    best = nearest_line(slope, offset, reach, fill, unit)
    sign = best.sign
    least, largest = np.where(sign < 0, -high, low), np.where(sign < 0, -low, high)
    level_of = levels_of(made)
    chosen = np.unique(np.linspace(1, made.levels - 1, min(made.levels - 1, MOST_LEVELS)).astype(np.int64))

    def place_of(p: np.ndarray) -> np.ndarray:
        return np.searchsorted(chosen, level_of(p * sign), side="right")

    wanted = thresholds(place_of, len(chosen) + 1, least, largest)
    numbers = made.low + chosen[:, None]

    # Sums beside each threshold, and whether they reach it.
    sums = np.clip(wanted[None] + NEAR[:, None, None], least, largest)
    reached = sums >= wanted

    def missed(bias: np.ndarray, scale: np.ndarray) -> np.ndarray:
        multiplier, shift = multiplier_of(scale.astype(np.float64) * unit)
        wrong = [
            (multiplied(fill * sums + bias, multiplier, shift, rounding) >= numbers) != reached
            for rounding in ROUNDINGS
        ]
        return np.asarray(sum(w * part.sum((0, 1)) for w, part in zip(ROUNDING_WEIGHTS, wrong)))

    bias, scale, cost = best.bias, best.scale, missed(best.bias, best.scale)
    for step in NEIGHBOURS:
        moved = best.bias + step
        for turned in _rates(slope, offset, fill, wanted, moved, best.rate):
            for tilt in TILTS:
                tried = (turned * tilt / unit).astype(np.float32)
                found = missed(moved, tried)
                better = found < cost
                bias, scale = np.where(better, moved, bias), np.where(better, tried, scale)
                cost = np.where(better, found, cost)
    first, last = (level_of((end * sign)[None])[0] for end in (least, largest))
    flat = first == last
    # One number for all sums: in 1/256, so that the bias is whole.
    constant = made.low + first
    bias = np.where(flat, constant * 256, bias)
    scale = np.where(flat, np.float32(2.0**-8 / unit), scale).astype(np.float32)
    cost = np.where(flat, 0, cost).astype(np.int64)
    return KernelLine(sign, bias, scale.astype(np.float64) * unit, scale, flat, cost)
