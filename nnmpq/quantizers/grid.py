"""The numbers that a quantizer can put out, and the whole-number codes that stand for them."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

UNIFORM = "uniform"
POWER_OF_TWO = "pow2"


def round_half_away(x: np.ndarray) -> np.ndarray:
    """Round to the nearest whole number, halves away from zero, as nnabla does.

    Example:
        >>> round_half_away(np.array([-1.5, -0.5, 0.49999997, 0.5, 2.5], np.float32)).tolist()
        [-2.0, -1.0, 0.0, 1.0, 3.0]
    """
    whole = np.trunc(x)
    return whole + np.sign(x) * (np.abs(x - whole) >= 0.5)


def nearest_power_of_two(magnitude: np.ndarray) -> np.ndarray:
    """2^round(log2 a) of float32 magnitudes, exact: decided on the mantissa, without a logarithm.

    Example:
        >>> nearest_power_of_two(np.array([1.0, 1.4142135, 1.4142137, 3.0], np.float32)).tolist()
        [1.0, 1.0, 2.0, 4.0]
    """
    bits = np.ascontiguousarray(magnitude, np.float32).view(np.int32) & 0x7FFFFFFF
    return ((bits + (0x00800000 - 0x3504F4)) & 0x7F800000).view(np.float32)


def exponent_of(power: np.ndarray) -> np.ndarray:
    """Return k of powers of two 2^k, exact.

    Example:
        >>> exponent_of(np.array([0.25, 1.0, 8.0])).tolist()
        [-2, 0, 3]
    """
    return np.frexp(power)[1] - 1


@attrs.frozen
class Grid:
    """The grid of one tensor.

    Uniform: value = step * (code + offset) with low <= code <= high. Power of two: value = 0 for code 0, else
    sign(code) * xmin * 2^(|code| - 1) up to xmax.

    Args:
        kind: "uniform" or "pow2".
        bits: width that a code is stored at.
        signed: whether the grid reaches below zero.
        step: distance of neighbours, float32, shape () or (C,); uniform only.
        offset: 0, or what lifts the codes to a grid without zero; uniform only.
        low: smallest code; uniform only.
        high: largest code, shape () or (C,); uniform only.
        xmin: smallest magnitude, shape () or (C,); power of two only.
        xmax: largest magnitude, shape () or (C,); power of two only.
        with_zero: whether zero is on the grid; power of two only.
        channel_axis: axis that the C entries belong to.
    """

    kind: str = attrs.field(validator=attrs.validators.in_((UNIFORM, POWER_OF_TWO)))
    bits: int
    signed: bool
    step: Any = None
    offset: float = 0.0
    low: Any = None
    high: Any = None
    xmin: Any = None
    xmax: Any = None
    with_zero: bool = True
    channel_axis: int | None = None

    def _spread(self, numbers: Any, ndim: int) -> np.ndarray:
        numbers = np.asarray(numbers)
        if not numbers.ndim:
            return numbers
        shape = [1] * ndim
        shape[0 if self.channel_axis is None else self.channel_axis] = numbers.size
        return numbers.reshape(shape)

    def levels(self) -> int:
        """Return how many different values the grid has, at most over channels."""
        if self.kind == UNIFORM:
            return int(np.max(np.asarray(self.high) - np.asarray(self.low))) + 1
        magnitudes = int(np.max(exponent_of(self.xmax) - exponent_of(self.xmin))) + 1
        return magnitudes * (2 if self.signed else 1) + int(self.with_zero)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Return the values of the grid nearest to x, float32, equal to the fused quantizer's bit for bit."""
        return self.decode(self.encode(x))

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the codes of x, int16, shape of x."""
        x = np.asarray(x, np.float32)
        if self.kind == UNIFORM:
            step = self._spread(self.step, x.ndim).astype(np.float32)
            low, high = self._spread(self.low, x.ndim), self._spread(self.high, x.ndim)
            offset = np.float32(self.offset)
            scaled = np.clip(x, (low + offset) * step, (high + offset) * step) * (np.float32(1) / step)
            if offset == 0:
                codes = round_half_away(scaled)
            elif offset == 0.5:
                codes = np.floor(scaled)  # a value on the edge of two cells belongs to the upper one
            else:
                codes = round_half_away(scaled - offset)
            return np.clip(codes, low, high).astype(np.int16)
        xmin, xmax = self._spread(self.xmin, x.ndim), self._spread(self.xmax, x.ndim)
        magnitude = nearest_power_of_two(x if self.signed else np.maximum(x, 0))
        zero = (magnitude < xmin) & self.with_zero
        code = exponent_of(np.clip(magnitude, xmin, xmax)) - exponent_of(xmin) + 1
        code = np.where(zero, 0, code)
        return np.where((x < 0) & self.signed, -code, code).astype(np.int16)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the values that codes stand for, float32.

        Example:
            >>> grid = Grid("uniform", 3, True, np.float32(0.5), 0.0, np.int32(-3), np.int32(3))
            >>> grid.decode(grid.encode(np.array([-9.0, 0.25, 0.2]))).tolist()
            [-1.5, 0.5, 0.0]
        """
        if self.kind == UNIFORM:
            step = self._spread(self.step, codes.ndim).astype(np.float32)
            return ((codes.astype(np.float32) + np.float32(self.offset)) * step).astype(np.float32)
        xmin = self._spread(self.xmin, codes.ndim).astype(np.float32)
        magnitude = np.ldexp(xmin, np.maximum(np.abs(codes).astype(np.int32), 1) - 1)
        return np.where(codes == 0, np.float32(0), np.sign(codes) * magnitude).astype(np.float32)
