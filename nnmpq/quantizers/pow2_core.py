"""The power-of-two quantizer's core: tensor and the two ends of the range in, quantized tensor out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.quantizers import pow2_kernels, uniform_kernels
from nnmpq.quantizers.scalars import LN2, detached, like_tensor
from nnmpq.quantizers.uniform_core import QuantizerCore

# The first float32 above sqrt(2), and its half: ratios to the nearest power of two stay between them.
UPPER_RATIO = float(np.int32(0x3FB504F4).view(np.float32))
LOWER_RATIO = UPPER_RATIO / 2


class Pow2Core(QuantizerCore):
    """y = sign(x) * clip(2^round(log2|x|), xmin, xmax), zero below xmin/sqrt(2) where the grid has a zero.

    Gradients: of x, y / x where xmin <= |x| < xmax, else 0; of xmin, sum of sign(x) where x went to it from below; of
    xmax, sum of sign(x) where |x| >= xmax.
    """

    def __init__(
        self,
        context: Any,
        signed: bool,
        channel_axis: int | None,
        with_zero: bool,
        kernels: bool | None = None,
    ) -> None:
        super().__init__(context, signed, channel_axis, kernels)
        self.with_zero = with_zero

    @property
    def name(self) -> str:
        """Name shown in graphs."""
        return "Pow2QuantizerCore"

    @property
    def args(self) -> dict[str, Any]:
        """What a pass needs to build the function again on other inputs."""
        return {**super().args, "with_zero": self.with_zero}

    def _kernel_forward(self, x: np.ndarray, xmin: np.ndarray, xmax: np.ndarray, y: np.ndarray) -> None:
        bits, written = x.view(np.int32), y.view(np.int32)
        pow2_kernels.forward(x, bits, xmin, xmax, self.signed, self.with_zero, self.inner, y, written)

    def _kernel_backward(
        self, x: np.ndarray, xmin: np.ndarray, xmax: np.ndarray, y: np.ndarray, g: np.ndarray, gx: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if xmin.size == 1:
            sums = np.zeros((-(-x.size // uniform_kernels.BLOCK), 2))
            pow2_kernels.backward(x, y, g, xmin, xmax, self.signed, self.with_zero, gx, sums)
            low_sum, high_sum = sums.sum(0)
            return low_sum, high_sum
        low_sums, high_sums = np.zeros(xmin.size), np.zeros(xmin.size)
        pow2_kernels.backward_channels(
            x, y, g, xmin, xmax, self.signed, self.with_zero, self.inner, gx, low_sums, high_sums
        )
        return low_sums, high_sums

    def _array_forward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        x = inputs[0]
        xmin, xmax = (self._parameter(v, x) for v in inputs[1:])
        magnitude = _magnitude(F.abs(x.data) if self.signed else F.relu(x.data), xmin, xmax, self.with_zero)
        outputs[0].data.copy_from(F.mul2(F.sign(x.data, 1.0), magnitude) if self.signed else magnitude)

    def _array_backward(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> list[Any]:
        x, g, y = inputs[0].data, outputs[0].grad, outputs[0].data
        xmin, xmax = (self._parameter(v, inputs[0]) for v in inputs[1:])
        a = F.abs(x) if self.signed else F.relu(x)
        above, inside = F.greater_equal(a, xmax), F.mul2(F.greater_equal(a, xmin), F.less(a, xmax))
        safe = F.where(inside, x, F.add_scalar(F.mul_scalar(x, 0.0), 1.0))
        slope = F.mul2(g, F.sign(x, 1.0)) if self.signed else g
        below = F.less(a, xmin)
        if self.with_zero:
            below = F.mul2(below, F.not_equal_scalar(y, 0.0))
        return [
            F.mul2(inside, F.div2(F.mul2(g, y), safe)),
            self._to_parameter(F.mul2(slope, below), inputs[1]),
            self._to_parameter(F.mul2(slope, above), inputs[2]),
        ]


def _magnitude(a: Any, xmin: Any, xmax: Any, with_zero: bool) -> Any:
    """clip(2^round(log2 a), xmin, xmax) by standard functions, exact: the logarithm's guess is checked by its ratio."""
    clipped = F.minimum2(F.maximum2(a, xmin), xmax)
    guess = F.r_pow_scalar(F.round(F.mul_scalar(F.log(clipped), 1.0 / LN2)), 2.0)
    ratio = F.div2(clipped, guess)
    up = F.greater_equal_scalar(ratio, UPPER_RATIO)
    down = F.less_scalar(ratio, LOWER_RATIO)
    y = F.mul2(guess, F.r_pow_scalar(F.sub2(up, down), 2.0))
    if with_zero:
        y = F.mul2(y, F.greater_equal(a, F.mul_scalar(xmin, LOWER_RATIO)))
    return y


def fused(
    x: nn.Variable,
    xmin: nn.Variable,
    xmax: nn.Variable,
    signed: bool,
    with_zero: bool,
    channel_axis: int | None,
) -> nn.Variable:
    """Quantize in one function; for training. Arguments as of `Pow2Core`."""
    return Pow2Core(nn.get_current_context(), signed, channel_axis, with_zero)(x, xmin, xmax)


def composed(
    x: nn.Variable,
    xmin: nn.Variable,
    xmax: nn.Variable,
    signed: bool,
    with_zero: bool,
    channel_axis: int | None,
) -> nn.Variable:
    """The same out of standard nnabla functions: the reference, and for graphs that are saved."""
    xmin, xmax = (like_tensor(v, x.ndim, channel_axis) for v in (xmin, xmax))
    rectified = x if signed else F.relu(x)
    still = detached(rectified)
    a = F.abs(still)
    low, high = detached(xmin), detached(xmax)
    y = detached(_magnitude(a, low, high, with_zero))
    above = detached(F.greater_equal(a, high))
    inside = detached(F.mul2(F.greater_equal(a, low), F.less(a, high)))
    below = detached(F.less(a, low))
    if with_zero:
        below = detached(F.mul2(below, F.not_equal_scalar(y, 0.0)))
    # y / x is the slope inside; a division by one elsewhere keeps zeros from making NaN.
    slope = detached(F.div2(F.mul2(y, inside), F.where(inside, a, F.constant(1.0, a.shape))))
    magnitude = F.mul2(inside, F.mul2(F.abs(rectified) if signed else rectified, slope))
    # Inside, x * (y / x) can miss y by a rounding; the exact number goes forward, this one carries the gradient.
    magnitude = F.add2(magnitude, F.add2(F.mul2(below, xmin), F.mul2(above, xmax)))
    exact = F.add2(F.sub2(magnitude, detached(magnitude)), y)
    return F.mul2(detached(F.sign(still, 1.0)), exact) if signed else exact
