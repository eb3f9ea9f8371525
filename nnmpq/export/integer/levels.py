"""The grid of an activation as levels in ascending order."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.export.integer.requantise import Grid
from nnmpq.quantizers.grid import UNIFORM, exponent_of

LARGEST_LEVELS = 2**8 + 1


@attrs.frozen(eq=False)
class SiteGrid:
    """A site's levels as whole numbers.

    Args:
        trained: the quantizer's grid.
        grid: the same as levels.
        unit: what one stands for.
        codes: the quantizer's code of each level, ascending.
    """

    trained: Any
    grid: Grid
    unit: float
    codes: np.ndarray

    @property
    def bits(self) -> int:
        """Width that the policy counts."""
        return int(self.trained.bits)

    @property
    def low(self) -> int:
        """Number of the lowest level."""
        return self.grid.low if self.grid.values is None else int(self.grid.values[0])

    @property
    def high(self) -> int:
        """Number of the highest level."""
        return self.grid.low + self.grid.levels - 1 if self.grid.values is None else int(self.grid.values[-1])

    def level_of(self, values: np.ndarray) -> np.ndarray:
        """Return the level that the trained quantizer puts float32 numbers into, int64."""
        return np.searchsorted(self.codes, self.trained.encode(values)).astype(np.int64)


def site_grid(name: str, trained: Any) -> SiteGrid:
    """Return the levels of an activation's grid.

    Args:
        name: of the site, for messages.
        trained: its `nnmpq.quantizers.grid.Grid`.

    Raises:
        ExportError: more than 8 bits, or magnitudes that do not fit in 32 bits.

    Example:
        >>> from nnmpq.quantizers.grid import Grid as Trained
        >>> pow2 = Trained("pow2", 3, False, xmin=np.float32(0.5), xmax=np.float32(4))
        >>> site_grid("relu", pow2).grid.values.tolist()
        [0, 1, 2, 4, 8]
    """
    if trained.kind == UNIFORM:
        low, high = int(trained.low), int(trained.high)
        if high - low + 1 > LARGEST_LEVELS:
            raise ExportError(f"{name}: {trained.bits} bits; activations have at most 8: set a_bitwidth_max = 8")
        return SiteGrid(trained, Grid(high - low + 1, low), float(trained.step), np.arange(low, high + 1))
    magnitudes = int(exponent_of(trained.xmax) - exponent_of(trained.xmin)) + 1
    if magnitudes > 24:
        raise ExportError(
            f"{name}: powers of two over 2^{magnitudes - 1} leave 24 bits: set a_bitwidth_max = 5, or train with "
            "a narrower range (a_xmin_min, a_xmax_max)"
        )
    positive = np.arange(1, magnitudes + 1)
    parts = [-positive[::-1]] if trained.signed else []
    parts += [np.zeros(1, np.int64)] if trained.with_zero else []
    codes = np.concatenate([*parts, positive])
    values = (np.sign(codes) * 2 ** np.maximum(np.abs(codes) - 1, 0)).astype(np.int32)
    return SiteGrid(trained, Grid(len(codes), 0, values), float(trained.xmin), codes)
