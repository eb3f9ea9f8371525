"""Arithmetic on a quantizer's few parameters, as a small nnabla graph with straight-through rounding."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np

LN2 = float(np.log(2.0))
# Raw parameters stay this far inside their limits: at a limit the clip's gradient is zero, and they would stick.
MARGIN = 1e-5


def clip(v: nn.Variable, limits: tuple[float, float]) -> nn.Variable:
    """Return min(max(v, low), high); the gradient is zero at and beyond the limits."""
    return F.minimum_scalar(F.maximum_scalar(v, limits[0]), limits[1])


def exponent(v: nn.Variable) -> nn.Variable:
    """round(log2 v), straight through the rounding."""
    return F.round(F.mul_scalar(F.log(v), 1.0 / LN2))


def power(e: nn.Variable) -> nn.Variable:
    """Return 2^e."""
    return F.r_pow_scalar(e, 2.0)


def power_of_two(v: nn.Variable) -> nn.Variable:
    """Return the power of two nearest to v, 2^round(log2 v); its gradient is that over v."""
    return power(exponent(v))


def detached(v: nn.Variable) -> nn.Variable:
    """The same number, with no gradient to where it came from."""
    return F.identity(v).apply(need_grad=False)


def log2_ceil(levels: nn.Variable) -> nn.Variable:
    """ceil(log2 levels) for whole numbers up to 2^14, straight through the rounding.

    The small shift keeps a logarithm that comes out a little above a whole number from adding a bit.
    """
    return F.ceil(F.add_scalar(F.mul_scalar(F.log(levels), 1.0 / LN2), -4e-5))


def alike(a: nn.Variable, b: nn.Variable) -> tuple[nn.Variable, nn.Variable]:
    """Bring a scalar and a vector of C channels to shapes that broadcast: (1,) and (C,)."""
    if a.ndim < b.ndim:
        a = F.broadcast(F.reshape(a, (1,), inplace=False), b.shape)
    elif b.ndim < a.ndim:
        b = F.broadcast(F.reshape(b, (1,), inplace=False), a.shape)
    return a, b


def widest(bits: nn.Variable) -> nn.Variable:
    """The largest of the channels' bits, shape (): a tensor is stored at one width."""
    return F.max(bits) if bits.ndim else bits


def like_tensor(v: Any, ndim: int, channel_axis: int | None) -> Any:
    """Reshape a parameter of shape () or (C,), a Variable or NdArray, so that it broadcasts against a tensor."""
    shape = [1] * ndim
    if v.shape and channel_axis is not None:
        shape[channel_axis] = v.shape[0]
    return F.reshape(v, tuple(shape), inplace=False)
