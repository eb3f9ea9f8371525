"""Power-of-two quantizers with learned range or bits: the parametrizations P1, P2 and P3 of Sony's paper."""

from __future__ import annotations

from typing import ClassVar

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import pow2_core
from nnmpq.quantizers.grid import POWER_OF_TWO, Grid
from nnmpq.quantizers.parameters import (
    Limits,
    Parameters,
    Values,
    as_variables,
    bounded,
    clamp,
    evaluate,
    in_order,
    pinned,
    whole_bits,
)
from nnmpq.quantizers.scalars import alike, clip, exponent, log2_ceil, power, widest

# Exponents beyond these are no normal float32: 2^128 is infinite, and 2^-127 slow and lossy.
HIGHEST, LOWEST = 127.0, -126.0


@attrs.frozen(kw_only=True)
class _Pow2:
    """What the three parametrizations share; each says how parameters become the two ends of the range."""

    family: ClassVar[str] = "pow2"
    at_fixed_bits: ClassVar[str] = "pow2_b_xmax"

    signed: bool
    with_zero: bool = attrs.field()
    faithful: bool = False
    channel_axis: int | None = None
    bits_limits: Limits = (1.0, 8.0)
    xmin_limits: Limits = (2.0**-16, 127.0)
    xmax_limits: Limits = (2.0**-8, 127.0)
    learn: bool = True

    @with_zero.default
    def _zero(self) -> bool:
        return not self.signed

    def __attrs_post_init__(self) -> None:
        """Refuse a width that leaves no bit for sign and zero."""
        needed = int(self.signed) + int(self.with_zero)
        if self.bits_limits[0] < needed:
            raise ValueError(f"bits_limits {self.bits_limits}: sign and zero of this grid take {needed} bits")

    def exponents(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return log2 of xmin and of xmax as graph variables, shape () or (C,), whole numbers."""
        raise NotImplementedError

    def _limits(self, name: str) -> Limits:
        return {"bits": self.bits_limits, "xmin": self.xmin_limits, "xmax": self.xmax_limits}[name]

    def _span(self, bits: nn.Variable) -> nn.Variable:
        """2^(round(bits) - s - z) - 1: how many powers of two lie between the ends."""
        free = F.add_scalar(F.round(clip(bits, self.bits_limits)), -float(self.signed) - float(self.with_zero))
        return F.add_scalar(power(free), -1.0)

    def learned(self, name: str) -> bool:
        """Return whether a parameter gets gradients: not when its limits pin it."""
        return self.learn and not pinned(self._limits(name))

    def initial(self, bits: int, step: float | np.ndarray) -> Values:
        """Return raw values for that many bits, with the range of the uniform grid of that step.

        Args:
            bits: width, within `bits_limits`.
            step: distance of neighbours of that uniform grid, > 0, shape () or (C,).
        """
        levels = 2.0 ** (bits - self.signed) - 1
        xmax = 2.0 ** np.round(np.log2(np.asarray(step, np.float64) * max(levels, 1.0)))
        xmin = xmax / 2.0 ** (2.0 ** max(bits - self.signed - self.with_zero, 0) - 1)
        start = {"bits": np.float32(bits), "xmin": xmin, "xmax": xmax}
        names: tuple[str, ...] = self.parameter_names  # type: ignore[attr-defined]
        return {name: clamp(np.asarray(start[name], np.float32), self._limits(name)) for name in names}

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        low, high = self.exponents(parameters)
        core = pow2_core.fused if fused else pow2_core.composed
        return core(x, power(low), power(high), self.signed, self.with_zero, self.channel_axis)

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return the bits as a graph variable of shape (), straight through the rounding."""
        return widest(F.round(clip(parameters["bits"], self.bits_limits)))

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values."""
        low, high = evaluate(*self.exponents(as_variables(values)))
        low, high = (a.reshape(-1)[0] if a.size == 1 else a for a in (low, high))
        return Grid(
            POWER_OF_TWO,
            self._whole_bits(values, np.max(np.asarray(high) - low)),
            self.signed,
            xmin=np.ldexp(np.float32(1), np.asarray(low).astype(np.int32)),
            xmax=np.ldexp(np.float32(1), np.asarray(high).astype(np.int32)),
            with_zero=self.with_zero,
            channel_axis=self.channel_axis if np.ndim(low) else None,
        )

    def _whole_bits(self, values: Values, span: float) -> int:
        return whole_bits(values["bits"], self.bits_limits)

    def constrain(self, values: Values) -> Values:
        """Return values put back inside the limits after an update."""
        return {name: clamp(value, self._limits(name)) for name, value in values.items()}

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return the gradients as they are: this parametrization has no rule for them."""
        return gradients

    def narrowed(self, values: Values) -> list[Values]:
        """Return the way to spend exactly one bit less; none at the narrowest."""
        bits = whole_bits(values["bits"], self.bits_limits)
        if bits - 1 < self.bits_limits[0] or bits - 1 - self.signed - self.with_zero < 0:
            return []
        return [{**values, "bits": np.full_like(np.asarray(values["bits"], np.float32), bits - 1)}]


@attrs.frozen(kw_only=True)
class Pow2BXmax(_Pow2):
    """Power of two, bits and largest magnitude learned (P1): xmin = xmax * 2^(1 - 2^k), k = round(bits) - s - z.

    Args:
        signed: both signs (weights), else only from 0 (activations after a ReLU, which it replaces).
        with_zero: whether zero is on the grid; by default on unsigned grids only.
        faithful: accepted for all quantizers alike; the published code has the same levels.
        channel_axis: one range a channel, along this axis.
        bits_limits: smallest and largest bits; equal ones pin them.
        xmin_limits: smallest and largest of the small end.
        xmax_limits: smallest and largest of the large end.
        learn: False keeps every parameter from the solver.

    Example:
        >>> quantizer = Pow2BXmax(signed=True)
        >>> quantizer.grid({"bits": np.float32(2), "xmax": np.float32(1)}).quantize(np.array([0.1, -3])).tolist()
        [0.5, -1.0]

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, section 2.2.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("bits", "xmax")

    def exponents(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return log2 of both ends."""
        span, high = alike(self._span(p["bits"]), exponent(clip(p["xmax"], self.xmax_limits)))
        return F.maximum_scalar(F.sub2(high, span), LOWEST), high


@attrs.frozen(kw_only=True)
class Pow2BXmin(_Pow2):
    """Power of two, bits and smallest magnitude learned (P2): xmax = xmin * 2^(2^k - 1), k = round(bits) - s - z.

    Args: as of `Pow2BXmax`.

    Example:
        >>> quantizer = Pow2BXmin(signed=True)
        >>> float(quantizer.grid({"bits": np.float32(8), "xmin": np.float32(2)}).xmax) == 2.0**127
        True

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, section 2.2.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("bits", "xmin")

    def exponents(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return log2 of both ends."""
        span, low = alike(self._span(p["bits"]), exponent(clip(p["xmin"], self.xmin_limits)))
        return low, F.minimum_scalar(F.add2(low, span), HIGHEST)


@attrs.frozen(kw_only=True)
class Pow2XminXmax(_Pow2):
    """Power of two, both ends learned (P3); the bits follow: ceil(log2(log2(xmax / xmin) + 1)) + s + z.

    Args: as of `Pow2BXmax`; of `bits_limits` only the lower one acts.

    Example:
        >>> quantizer = Pow2XminXmax(signed=False)
        >>> quantizer.grid({"xmin": np.float32(0.25), "xmax": np.float32(2)}).bits
        3

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, case P3.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("xmin", "xmax")

    def exponents(self, p: Parameters) -> tuple[nn.Variable, nn.Variable]:
        """Return log2 of both ends."""
        return exponent(clip(p["xmin"], self.xmin_limits)), exponent(clip(p["xmax"], self.xmax_limits))

    def bits(self, parameters: Parameters) -> nn.Variable:
        """Return max(ceil(log2(log2(xmax / xmin) + 1)) + s + z, lowest bits), shape ()."""
        low, high = self.exponents(parameters)
        magnitudes = F.add_scalar(F.maximum_scalar(F.sub2(high, low), 0.0), 1.0)
        bits = F.add_scalar(log2_ceil(magnitudes), float(self.signed) + float(self.with_zero))
        return widest(F.maximum_scalar(bits, float(self.bits_limits[0])))

    def _whole_bits(self, values: Values, span: float) -> int:
        needed = int(span).bit_length() + int(self.signed) + int(self.with_zero)
        return max(needed, int(self.bits_limits[0]))

    def constrain(self, values: Values) -> Values:
        """Return values in order, xmin below xmax, and inside the limits."""
        return in_order(values, "xmin", "xmax", self.xmin_limits, self.xmax_limits)

    def clamp_gradients(self, values: Values, gradients: Values) -> Values:
        """Return gradients no larger than xmin, so that one update moves by the learning rate at most."""
        return bounded(gradients, values["xmin"])

    def narrowed(self, values: Values) -> list[Values]:
        """Return the small end raised with the large one kept, and the large end lowered with the small one kept."""
        grid = self.grid(values)
        span = 2 ** max(grid.bits - 1 - int(self.signed) - int(self.with_zero), 0) - 1
        if grid.bits - 1 < self.bits_limits[0]:
            return []
        assert grid.xmin is not None and grid.xmax is not None
        shape = np.shape(values["xmin"])
        raised = np.broadcast_to(np.maximum(grid.xmin, grid.xmax / 2.0**span), shape).astype(np.float32)
        lowered = np.broadcast_to(np.minimum(grid.xmax, grid.xmin * 2.0**span), shape).astype(np.float32)
        ways = [
            {"xmin": clamp(raised, self.xmin_limits), "xmax": np.asarray(values["xmax"], np.float32)},
            {"xmin": np.asarray(values["xmin"], np.float32), "xmax": clamp(lowered, self.xmax_limits)},
        ]
        return [way for way in ways if self.grid(way).bits == grid.bits - 1]
