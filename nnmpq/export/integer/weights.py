"""A quantized weight as whole numbers and a unit."""

from __future__ import annotations

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.quantizers.grid import UNIFORM, Grid, exponent_of


@attrs.frozen(eq=False)
class IntegerWeights:
    """value = levels[index] * unit.

    Args:
        index: uint8, the weight's shape.
        levels: int32, ascending.
        bits: width that an index is packed at.
        unit: float64, shape () or (C,).
    """

    index: np.ndarray
    levels: np.ndarray
    bits: int
    unit: np.ndarray


def integer_weights(codes: np.ndarray, grid: Grid, where: str) -> IntegerWeights:
    """Return the whole numbers that a weight's codes stand for.

    Uniform: the code itself, or, for grids between the steps (offset 1/2 or DoReFa's), 2 * code + 2 * offset with half
    the step. Power of two: sign * 2^(|code| - 1) with the smallest magnitude as unit.

    Args:
        codes: of `nnmpq.quantizers.grid.Grid.encode`.
        grid: its grid.
        where: name of the site, for messages.

    Raises:
        ExportError: more than 8 bits.

    Example:
        >>> grid = Grid("uniform", 2, True, np.float32(0.5), 0.5, np.int32(-2), np.int32(1))
        >>> weights = integer_weights(np.array([-2, 1]), grid, "w")
        >>> weights.levels[weights.index].tolist(), float(weights.unit)
        ([-3, 3], 0.25)
    """
    if grid.bits > 8:
        raise ExportError(f"{where}: {grid.bits} bits; weights of at most 8 can be packed: set w_bitwidth_max = 8")
    codes = codes.astype(np.int64)
    if grid.kind == UNIFORM:
        low, high = int(np.min(grid.low)), int(np.max(grid.high))
        if high - low >= 2**grid.bits:
            raise ExportError(f"{where}: its codes from {low} to {high} need more than its {grid.bits} bits")
        places = np.arange(low, high + 1)
        between = 1 if grid.offset == 0 else 2
        levels = between * places + int(round(between * grid.offset))
        unit = np.asarray(grid.step, np.float64) / between
        index = codes - low
    else:
        magnitudes = int(np.max(exponent_of(np.asarray(grid.xmax)) - exponent_of(np.asarray(grid.xmin)))) + 1
        positive = np.arange(1, magnitudes + 1)
        kinds = [-positive[::-1]] if grid.signed else []
        kinds += [np.zeros(1, np.int64)] if grid.with_zero else []
        places = np.concatenate([*kinds, positive])
        if magnitudes > 30:
            raise ExportError(f"{where}: magnitudes over 2^{magnitudes} do not fit in 32 bits: lower w_bitwidth_max")
        levels = np.sign(places) * 2 ** np.maximum(np.abs(places) - 1, 0)
        unit = np.asarray(grid.xmin, np.float64)
        index = np.searchsorted(places, codes)
    bits = max(grid.bits, int(len(levels) - 1).bit_length(), 1)
    return IntegerWeights(index.astype(np.uint8), levels.astype(np.int32), bits, unit)
