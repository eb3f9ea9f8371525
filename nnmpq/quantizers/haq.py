"""Weights on a grid around zero whose range is set once and then stays: HAQ's and GMPQ's."""

from __future__ import annotations

from typing import ClassVar

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import uniform_core
from nnmpq.quantizers.fixed import _GivenBits
from nnmpq.quantizers.fixed_core import straight_through
from nnmpq.quantizers.grid import UNIFORM, Grid
from nnmpq.quantizers.parameters import Limits, Parameters, Values, clamp
from nnmpq.quantizers.scalars import clip, detached, power


@attrs.frozen(kw_only=True)
class Haq(_GivenBits):
    """Symmetric weights: Q(w) = step * round(clip(w, -t, t) / step) with step = t / (2^(b-1) - 1), t given.

    2^b - 1 levels, zero among them. The gradient of w is 1 everywhere, where it is clipped too; t is no parameter that
    a solver moves: the largest magnitude or a calibration says it.

    Args:
        signed: weights alone are quantized so.
        bits_limits: 2 bits are -t, 0 and t; one has no such grid.
        xmax_limits: smallest and largest t.

    Example:
        >>> values = {"bits": np.float32(2), "xmax": np.float32(0.5)}
        >>> Haq().grid(values).quantize(np.array([-0.3, 0.2, 9.0])).tolist()
        [-0.5, 0.0, 0.5]

    Source:
        Wang et al., "HAQ: Hardware-Aware Automated Quantization", CVPR 2019, section 3.2, as the published code of
        "Generalizable Mixed-Precision Quantization via Attribution Rank Preservation", ICCV 2021, has it.
    """

    family: ClassVar[str] = "symmetric"
    at_fixed_bits: ClassVar[str] = "haq"
    parameter_names: ClassVar[tuple[str, ...]] = ("bits", "xmax")
    signed: bool = attrs.field(default=True, validator=attrs.validators.in_((True,)))
    bits_limits: Limits = (2.0, 8.0)

    def learned(self, name: str) -> bool:
        """Return whether a parameter gets gradients: none does."""
        return False

    def initial(self, bits: int, step: float | np.ndarray) -> Values:
        """Return raw values for that many bits and that step."""
        bits = int(np.clip(bits, *self.bits_limits))
        xmax = np.asarray(step, np.float32) * np.float32(2 ** (bits - 1) - 1)
        return {"bits": np.float32(bits), "xmax": clamp(xmax, self.xmax_limits)}

    def apply(self, x: nn.Variable, parameters: Parameters, fused: bool = True) -> nn.Variable:
        """Return the quantized tensor, shape of x."""
        bits = F.round(clip(parameters["bits"], self.bits_limits))
        levels = F.add_scalar(power(F.add_scalar(bits, -1.0)), -1.0)
        xmax = clip(parameters["xmax"], self.xmax_limits)
        if xmax.ndim:
            levels = F.broadcast(F.reshape(levels, (1,), inplace=False), xmax.shape)
        core = uniform_core.fused if fused else uniform_core.composed
        value = core(detached(x), detached(F.div2(xmax, levels)), detached(xmax), True, self.channel_axis)
        return straight_through(x, value)

    def grid(self, values: Values, x: np.ndarray | None = None) -> Grid:
        """Return the grid of raw values."""
        high = 2 ** (self._bits(values) - 1) - 1
        step = np.clip(values["xmax"], *np.asarray(self.xmax_limits, np.float32)) / np.float32(high)
        axis = self.channel_axis if np.ndim(step) else None
        low, top = np.int32(-high), np.int32(high)
        return Grid(UNIFORM, self._bits(values), True, step=np.float32(step), low=low, high=top, channel_axis=axis)

    def constrain(self, values: Values) -> Values:
        """Return the range put back inside its limits."""
        return {**values, "xmax": clamp(values["xmax"], self.xmax_limits)}
